"""Sampling noise that does not depend on batches or on the order of requests."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def noise(seed: int, problem: str, step: int, positions: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), shape (positions,), that depend only on (seed, problem, step, position)."""
    key = np.frombuffer(noise_key(seed, problem, step)[:16], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(positions)


def noise_key(seed: int, problem: str, step: int) -> bytes:
    """32 bytes for each (seed, problem, step)."""
    return hashlib.sha256(f"{seed}\0{problem}\0{step}".encode()).digest()
