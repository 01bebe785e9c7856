"""The OpenAI-compatible server in front of another: it relays, follows the thought, and really stops it."""
