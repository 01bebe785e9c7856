"""Stopping rules that are replayed on recorded traces: baselines, published rivals, votes."""
