"""The embedded model: a small transformer that does arithmetic in steps, so that everything can be tried offline.

The decoder needs the extra `demo`. The notation and the tasks do not: the same model can also be served elsewhere.
"""
