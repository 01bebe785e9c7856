"""Log-probabilities to bits: Shannon entropy of tokens and of sequences, whole and running.

With `p_i = exp(l_i) / Σ exp(l_j)` over the k entries received, `H = -Σ p_i log2 p_i` (arXiv 2510.08146), computed as
`(ln S - Σ exp(l_i) l_i / S) / ln 2` with `S = Σ exp(l_i)`: one pass of `exp` and no logarithm of an entry.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from justenough.errors import LogprobsError

Tail = Literal["renormalise", "bucket", "full"]

TAILS: Final[tuple[Tail, ...]] = ("renormalise", "bucket", "full")
ROUNDING: Final = 1e-3
"""How far a log-probability may lie above 0, and the mass of a whole vocabulary beside 1, before it is an error."""
MOST_BITS: Final = 1e6
"""More than any vocabulary can hold: an entropy above it is an error, and sums below it cannot overflow."""

_LN2: Final = math.log(2)
# exp() of this is 0 in double precision, and 0 times it is 0: it stands for -inf without making a NaN.
_NOTHING: Final = -1e4
_SURELY_SOME: Final = -700.0
"""exp() of anything above is more than 0 in double precision."""


def token_entropy(logprobs: ArrayLike, *, tail: Tail = "renormalise", top_k: int | None = None) -> NDArray[np.float64]:
    """Entropy in bits, shape (T,), of natural log-probabilities (T, k), in any order, -inf where there is no entry.

    `tail` treats the mass outside the k entries: `renormalise` drops it (as in the paper), `bucket` counts it as one
    more symbol, `full` asserts that there is none. If there are more than `top_k` entries, the largest count.
    Raises `LogprobsError` for NaN, values above 0, rows without any mass, and an unknown tail.
    """
    try:
        block = np.ascontiguousarray(logprobs, dtype=np.float64)
    except ValueError as error:
        raise LogprobsError(
            f"no block of log-probabilities: {error}", hint="rows of one length; fill the shorter ones with -inf"
        ) from error
    if block.ndim != 2 or block.shape[0] == 0 or block.shape[1] == 0:
        raise LogprobsError(
            f"log-probabilities have shape {block.shape}, expected (tokens, k), both at least 1",
            hint="give one row of log-probabilities for each token",
        )
    if tail not in TAILS:
        raise LogprobsError(f"unknown tail treatment {tail!r}", hint=f"one of {', '.join(TAILS)}")
    # Before anything is left out: a NaN sorts last, so keeping the largest entries would hide it.
    if not float(block.max()) <= ROUNDING:
        raise _not_logprobs(block)
    if top_k is not None:
        block = _widened(block, top_k)
    if float(block.min()) < _NOTHING:
        block = np.maximum(block, _NOTHING)
    return _bits(block, tail)


def _bits(block: NDArray[np.float64], tail: Tail) -> NDArray[np.float64]:
    """The bits of a checked block: without NaN, values above 0, and values whose product with 0 is a NaN."""
    weights = np.exp(block)
    # einsum adds along short rows ten times faster than sum(axis=1), and each row by itself.
    mass = np.einsum("ij->i", weights)
    if not float(mass.min()) > 0.0:
        row = int(np.argmin(mass))
        raise LogprobsError(f"token {row} has no entry with any probability", hint="ask for top_logprobs")
    logs = np.log(mass)
    bits = (logs - np.einsum("ij,ij->i", weights, block) / mass) / _LN2
    if tail == "bucket":
        bits = _with_bucket(bits, mass)
    elif tail == "full" and float(np.abs(mass - 1.0).max()) > ROUNDING:
        row = int(np.argmax(np.abs(mass - 1.0)))
        raise LogprobsError(
            f"token {row}: the entries hold {float(mass[row])!r} of the probability, not all of it",
            hint="tail `full` needs the whole vocabulary; use `renormalise` or `bucket`",
        )
    # Rounding can leave -1e-16 where all the mass is on one entry.
    floored: NDArray[np.float64] = np.maximum(bits, 0.0)
    return floored


def _widened(block: NDArray[np.float64], top_k: int) -> NDArray[np.float64]:
    """Exactly `top_k` columns: the largest entries, or padded with -inf. Equal widths give bit-identical sums."""
    if top_k < 1:
        raise LogprobsError(f"top_k is {top_k}", hint="at least 1; the paper takes 20")
    width = block.shape[1]
    if width > top_k:
        largest: NDArray[np.float64] = -np.partition(-block, top_k - 1, axis=1)[:, :top_k]
        return np.ascontiguousarray(largest)
    if width < top_k:
        padded: NDArray[np.float64] = np.pad(block, ((0, 0), (0, top_k - width)), constant_values=-np.inf)
        return padded
    return block


def _not_logprobs(block: NDArray[np.float64]) -> LogprobsError:
    bad = np.isnan(block) | (block > ROUNDING)
    row, column = (int(index) for index in np.argwhere(bad)[0])
    return LogprobsError(
        f"token {row}, entry {column}: {float(block[row, column])!r} is no log-probability",
        hint="natural logarithms of probabilities are at most 0",
    )


def _with_bucket(bits: NDArray[np.float64], mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy with the missing mass m as one more symbol: `H = s·H_k + h(m)`, s = 1 - m, h the binary entropy."""
    listed = np.minimum(mass, 1.0)
    missing = 1.0 - listed
    binary = -(listed * np.log2(listed) + missing * np.log2(np.where(missing > 0, missing, 1.0)))
    total: NDArray[np.float64] = listed * bits + binary
    return total


def is_measurable(logprobs: Sequence[float]) -> bool:
    """Whether the bits of a row (k,) can surely be computed later, in a block; False means that it is unknown."""
    # A NaN can hide from max(), never from a sum.
    return _SURELY_SOME < max(logprobs, default=math.inf) <= ROUNDING and (total := sum(logprobs)) == total


def entropy_of(logprobs: Sequence[float], *, tail: Tail = "renormalise", top_k: int | None = None) -> float:
    """Entropy in bits of one token's log-probabilities (k,); bit for bit equal to `token_entropy` of its row."""
    row = np.array([logprobs], dtype=np.float64)
    if top_k in (None, row.shape[1]) and tail in TAILS and is_measurable(logprobs) and min(logprobs) >= _NOTHING:
        return float(_bits(row, tail)[0])
    return float(token_entropy(row, tail=tail, top_k=top_k if top_k is not None else row.shape[1])[0])


def sequence_entropy(entropies: Iterable[float]) -> float:
    """Mean of token entropies in bits, with an exact sum; raises `LogprobsError` for none or an impossible one."""
    values = list(entropies)
    if not values:
        raise _no_token()
    plausible = min(values) >= 0.0 and max(values) <= MOST_BITS
    total = math.fsum(values) if plausible else math.nan
    # A NaN can hide from min() and max(), never from a sum.
    if math.isnan(total):
        for token, bits in enumerate(values):
            require_entropy(token, bits)
    return total / len(values)


def require_entropy(token: int, bits: float) -> None:
    """Raise `LogprobsError` unless that token's `bits` can be an entropy."""
    if not 0.0 <= bits <= MOST_BITS:
        raise LogprobsError(f"token {token}: {bits!r} is no entropy", hint="bits are at least 0, and few")


def _no_token() -> LogprobsError:
    return LogprobsError("there is no token to compute an entropy of", hint="the sequence is empty")


class RunningEntropy:
    """The mean of the token entropies so far; bit for bit equal to `sequence_entropy`.

    The sum is stored as non-overlapping partial sums without any rounding error (Shewchuk 1997, as in `math.fsum`).
    """

    __slots__ = ("_partials", "count")

    def __init__(self) -> None:
        self._partials: list[float] = []
        self.count = 0

    def add(self, bits: float) -> None:
        """Add one token's entropy in bits."""
        require_entropy(self.count, bits)
        x = bits
        count = 0
        for y in self._partials:
            if abs(x) < abs(y):
                x, y = y, x
            high = x + y
            low = y - (high - x)
            if low:
                self._partials[count] = low
                count += 1
            x = high
        self._partials[count:] = [x]
        self.count += 1

    @property
    def mean(self) -> float:
        """Mean in bits; raises `LogprobsError` before the first token."""
        if not self.count:
            raise _no_token()
        return math.fsum(self._partials) / self.count
