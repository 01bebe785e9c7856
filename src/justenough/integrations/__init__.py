"""The gate inside other people's programs: clients, libraries and engines."""
