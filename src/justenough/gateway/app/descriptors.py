"""File descriptors: a running request needs one for its client and one for the upstream."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from justenough.gateway.settings import Limits

log: Final = logging.getLogger("justenough.gateway")

SPARE: Final = 64
"""Descriptors for files, the event loop, the upstream's probe and connections for `/health`."""


def fitted(limits: Limits) -> Limits:
    """The limits that this process's descriptors allow, after its soft limit was raised as far as possible.

    With too few descriptors the number of simultaneous requests is reduced, with a warning.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return limits
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = limits.max_connections + limits.max_concurrent + SPARE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return limits
    room = max(3, soft - SPARE)
    concurrent = min(limits.max_concurrent, room // 3)
    log.warning(
        "only %d file descriptors are allowed, so at most %d requests are served at a time; raise it: ulimit -n %d",
        soft,
        concurrent,
        needed,
    )
    return replace(limits, max_concurrent=concurrent, max_connections=room - concurrent)
