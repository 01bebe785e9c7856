"""The gate inside programs of others: clients, libraries and engines."""
