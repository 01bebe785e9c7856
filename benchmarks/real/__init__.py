"""Real language models: weights from the package index, tasks, collections, and what they show."""
