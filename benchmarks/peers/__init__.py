"""Other people's gateways, each in an environment of its own, measured as users would run them."""
