"""Random draws that a seed decides."""

from __future__ import annotations

from numbers import Integral

import numpy as np

from justenough.errors import InputError


def check_seed(seed: int) -> None:
    """Raise `InputError` unless the seed is a whole number, 0 or more."""
    if not isinstance(seed, Integral) or seed < 0:
        raise InputError(f"seed is {seed!r}", hint="a whole number, 0 or more")


def generator(seed: int, *key: int) -> np.random.Generator:
    """The generator of a seed; each `key` gives draws of their own. Raises `InputError` for a bad seed."""
    check_seed(seed)
    return np.random.default_rng((seed, *key) if key else seed)
