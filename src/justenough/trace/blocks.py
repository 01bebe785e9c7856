"""The log-probabilities of a step as a part of an array that many steps share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, overload

import numpy as np
from numpy.typing import NDArray

from justenough.errors import LogprobsError
from justenough.signal.entropy import Tail, token_entropy

Floats = NDArray[np.float64]

_AT_ONCE: Final = 4096
"""Tokens that are measured together: few enough to stay in the processor's cache."""


def view(values: Floats) -> memoryview[float]:
    """An array (T,) as a sequence of Python floats that shares the array's memory."""
    # NumPy arrays have the buffer protocol, but their type stubs declare it only from Python 3.12 on.
    flat: memoryview[int] = memoryview(np.ascontiguousarray(values, dtype=np.float64))  # type: ignore[arg-type]
    return flat.cast("B").cast("d")


class Rows:
    """Log-probabilities of all tokens of a batch, shape (N, k). Each tail and top k is computed only once."""

    def __init__(self, values: Floats) -> None:
        self.values = values
        self._bits: dict[tuple[Tail, int | None], memoryview[float] | None] = {}

    def bits(self, *, tail: Tail, top_k: int | None) -> memoryview[float] | None:
        """Bits of each row (N,); None if the bits of some row cannot be computed."""
        key = (tail, top_k)
        if key not in self._bits:
            parts = (self.values[begin : begin + _AT_ONCE] for begin in range(0, len(self.values), _AT_ONCE))
            try:
                bits = [token_entropy(part, tail=tail, top_k=top_k) for part in parts]
                self._bits[key] = view(np.concatenate(bits)) if bits else None
            except LogprobsError:
                self._bits[key] = None
        return self._bits[key]


class Block(Sequence[Sequence[float]]):
    """The rows of one step, shape (T, k)."""

    __slots__ = ("_begin", "_end", "_rows")

    def __init__(self, rows: Rows, begin: int, end: int) -> None:
        self._rows, self._begin, self._end = rows, begin, end

    @property
    def values(self) -> Floats:
        """The array itself, shape (T, k)."""
        return self._rows.values[self._begin : self._end]

    @property
    def width(self) -> int:
        """k."""
        width: int = self._rows.values.shape[1]
        return width

    def bits(self, *, tail: Tail, top_k: int | None) -> Sequence[float]:
        """Bits of each row (T,); raises `LogprobsError` as `token_entropy` does."""
        whole = self._rows.bits(tail=tail, top_k=top_k)
        if whole is None:
            return tuple(token_entropy(self.values, tail=tail, top_k=top_k).tolist())
        return whole[self._begin : self._end].tolist()

    def __len__(self) -> int:
        return self._end - self._begin

    def __iter__(self) -> Iterator[Sequence[float]]:
        return iter(self.values.tolist())

    @overload
    def __getitem__(self, index: int) -> Sequence[float]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Sequence[float]]: ...

    def __getitem__(self, index: int | slice) -> Sequence[float] | Sequence[Sequence[float]]:
        rows: Sequence[float] | Sequence[Sequence[float]] = self.values[index].tolist()
        return rows
