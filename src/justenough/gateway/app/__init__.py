"""The server: connections, routes, and the admission of clients."""
