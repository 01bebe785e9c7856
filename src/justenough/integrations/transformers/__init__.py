"""Stops the thoughts of `model.generate` of the `transformers` library."""
