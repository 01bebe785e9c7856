"""Replies inside the records of proxies and of tools that observe applications."""
