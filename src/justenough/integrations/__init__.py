"""The gate inside the libraries that people use: each is imported only by its own module."""
