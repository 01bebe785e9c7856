"""The server: connections, routes, and who is let in."""
