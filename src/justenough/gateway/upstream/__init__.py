"""The server behind the gateway: a client for it, and what it can do."""
