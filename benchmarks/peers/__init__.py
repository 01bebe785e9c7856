"""Gateways of other projects, each in its own environment, measured as users would run them."""
