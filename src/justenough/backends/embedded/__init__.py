"""The reasoning model that ships with the library."""
