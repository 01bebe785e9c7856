"""The reasoning model that ships with the library."""

from justenough.backends.embedded.backend import EmbeddedBackend

__all__ = ["EmbeddedBackend"]
