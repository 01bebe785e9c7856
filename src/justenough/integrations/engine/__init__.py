"""A request inside an engine: what it asks for, its thought token by token, its rows of logits. Knows no engine."""
