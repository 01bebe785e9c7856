"""The columns of one kind of object in a batch of recorded traces: of the traces, the steps or the probes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, repeat
from typing import TYPE_CHECKING, Final, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from justenough.trace.blocks import Floats
from justenough.trace.exchange import FIELDS, KINDS
from justenough.trace.parquet import checked_numbers, list_offsets

if TYPE_CHECKING:
    import pyarrow as pa

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Texts = list[str | None]
Value = TypeVar("Value")

UNKNOWN: Final = -1
"""Stands for a missing count, code or seed."""


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Lists of numbers, one for each object, in one array."""

    values: Floats
    """(N,), or (N, k) for log-probabilities."""
    offsets: Ints
    """Where each list begins, and where the last one ends."""
    valid: Bools
    """Whether the object has a list."""


class Level:
    """The columns of the traces, the steps or the probes of a batch; those without any value are left out."""

    def __init__(self, kind: type, array: pa.StructArray) -> None:
        self.size = len(array)
        self.there: Bools = np.asarray(array.is_valid().to_numpy(zero_copy_only=False))
        children = zip((field.name for field in array.type), array.flatten(), strict=True)
        self.columns: dict[str, pa.Array] = {
            name: child for name, child in children if child.null_count < len(child) or not self.size
        }
        self._kind = kind
        self._numbers: dict[str, Numbers] = {}

    def covered(self, *, besides: Iterable[str] = ()) -> bool:
        """Whether all columns are fields and all values are valid; it is silent about the columns `besides`."""
        fields = FIELDS[self._kind]
        names = [name for name in self.columns if name not in besides]
        return all(name in fields and self._valid(name, self.columns[name]) for name in names)

    def _valid(self, name: str, array: pa.Array) -> bool:
        import pyarrow as pa

        kind = KINDS.get(name)
        if kind is None:
            return _is_text(array.type)
        if kind.plain is not None:
            _, least, most = kind.plain
            if array.type != pa.type_for_alias(kind.arrow):
                return False
            values = array.drop_null().to_numpy(zero_copy_only=False)
            return bool(((values >= least) & (values <= most)).all())
        if not pa.types.is_list(array.type):
            return False
        if name == "token_texts":
            return not array.flatten().null_count and _is_text(array.type.value_type)
        if (checked := checked_numbers(name, array)) is None:
            return False
        valid = np.asarray(array.is_valid().to_numpy(zero_copy_only=False))
        self._numbers[name] = Numbers(checked, np.array(list_offsets(array)), valid)
        return True

    def coded(self, name: str) -> tuple[Ints, Texts]:
        """A column of texts as the places of its values in a list, which ends in None."""
        if name not in self.columns:
            return np.zeros(self.size, dtype=np.int64), [None]
        array = self.columns[name].dictionary_encode()
        texts: Texts = array.dictionary.to_pylist()
        codes = array.indices.cast("int64").fill_null(len(texts)).to_numpy(zero_copy_only=False)
        return codes, [*texts, None]

    def mapped(self, name: str, change: Callable[[str], Value]) -> list[Value | None]:
        """A column of texts, each changed by a function that is called once for equal texts."""
        codes, texts = self.coded(name)
        values = [None if text is None else change(text) for text in texts]
        return [values[code] for code in codes.tolist()]

    def texts(self, name: str) -> Texts:
        """A column of texts; equal texts are one object."""
        return self.mapped(name, str)

    def counts(self, name: str) -> Ints:
        """A column of whole numbers or flags; -1 where there is none."""
        if name not in self.columns:
            return np.full(self.size, UNKNOWN)
        array = self.columns[name].cast("int64").fill_null(UNKNOWN)
        return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.int64)

    def reals(self, name: str) -> Floats:
        """A column of real numbers; NaN where there is none."""
        if name not in self.columns:
            return np.full(self.size, np.nan)
        return np.asarray(self.columns[name].fill_null(np.nan).to_numpy(zero_copy_only=False), dtype=np.float64)

    def numbers(self, name: str) -> Numbers | None:
        """A column of lists of numbers; None if no object has one."""
        return self._numbers.get(name)

    def lists(self, name: str) -> list[list[float] | None]:
        """A column of lists of numbers as Python lists."""
        if (numbers := self.numbers(name)) is None:
            return [None] * self.size
        values = numbers.values.tolist()
        return [
            values[begin:end] if valid else None
            for (begin, end), valid in zip(pairwise(numbers.offsets.tolist()), numbers.valid.tolist(), strict=True)
        ]

    def token_texts(self) -> list[list[str] | None]:
        """The column of the tokens' texts."""
        lists: list[list[str] | None] = self.columns["token_texts"].to_pylist() if "token_texts" in self.columns else []
        return lists or [None] * self.size

    def rendered(self, nested: Mapping[str, Sequence[str | None]], defaults: Mapping[str, str]) -> Texts:
        """Each object as the JSON that `trace_digest` hashes; columns of other objects are given as JSON."""
        parts: list[Iterable[str]] = []
        for name in sorted({*self.columns, *defaults}):
            key, missing = f'"{name}": ', f'"{name}": {defaults[name]}, ' if name in defaults else ""
            if name not in self.columns:
                parts.append(repeat(missing, self.size))
            elif None in (values := nested[name] if name in nested else self._json(name)):
                parts.append([missing if value is None else f"{key}{value}, " for value in values])
            else:
                parts += [repeat(key, self.size), cast("Sequence[str]", values), repeat(", ", self.size)]
        rows = map("".join, zip(*parts, strict=True))
        return [f"{{{row[:-2]}}}" if valid else None for row, valid in zip(rows, self.there.tolist(), strict=True)]

    def _json(self, name: str) -> Sequence[str | None]:
        kind = KINDS.get(name)
        if kind is None:
            return self.mapped(name, json.dumps)
        if name == "token_texts":
            return [None if texts is None else json.dumps(texts) for texts in self.token_texts()]
        if (numbers := self.numbers(name)) is not None:
            flat, width = memoryview(numbers.values.tobytes()), numbers.values[:1].nbytes
            digests = [_digest(flat[begin:end]) for begin, end in pairwise((numbers.offsets * width).tolist())]
            if kind.depth == 2:
                entries, lengths = numbers.values.shape[1], np.diff(numbers.offsets).tolist()
                digests = [f"[{one}, {_widths(rows, entries)}]" for one, rows in zip(digests, lengths, strict=True)]
            if numbers.valid.all():
                return digests
            return [one if valid else None for one, valid in zip(digests, numbers.valid.tolist(), strict=True)]
        if kind.arrow == "bool":
            return [_FLAGS[value] for value in self.counts(name).tolist()]
        array = self.columns[name]
        values = array.to_pylist() if array.null_count else array.to_numpy(zero_copy_only=False).tolist()
        return [None if value is None else repr(value) for value in values]


_FLAGS: Final = ("false", "true", None)
"""By the codes of `Level.counts`."""


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind.value_type if pa.types.is_dictionary(kind) else kind))


def _digest(values: memoryview) -> str:
    return f'"{hashlib.sha256(values).hexdigest()}"'


@lru_cache(maxsize=4096)
def _widths(rows: int, width: int) -> str:
    return _digest(memoryview(np.full(rows, float(width)).tobytes()))
