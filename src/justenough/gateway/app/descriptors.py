"""File descriptors: a request under way takes one for its client and one for the upstream."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from justenough.gateway.settings import Limits

log: Final = logging.getLogger("justenough.gateway")

SPARE: Final = 64
"""Descriptors for files, the event loop, the upstream's probe and the connections that ask for `/health`."""


def fitted(limits: Limits) -> Limits:
    """The limits that this process's descriptors allow; its soft limit is raised as far as the system permits.

    Without enough descriptors fewer requests are served at a time, which is logged: more are answered `overloaded`.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return limits
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.max_connections + limits.max_concurrent + SPARE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits
    room = max(3, soft - SPARE)
    concurrent = min(limits.max_concurrent, room // 3)
    log.warning(
        "only %d file descriptors are allowed: at most %d requests are served at a time (raise it: ulimit -n %d)",
        soft,
        concurrent,
        wanted,
    )
    return replace(limits, max_concurrent=concurrent, max_connections=room - concurrent)
