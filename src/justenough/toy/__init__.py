"""The embedded model: a small transformer that does arithmetic in steps, so that everything can be tried offline."""

from justenough.toy.backend import EmbeddedBackend

__all__ = ["EmbeddedBackend"]
