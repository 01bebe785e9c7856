"""The way of a token: read, aligned, decided on, written."""
