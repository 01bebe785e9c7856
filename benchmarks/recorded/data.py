"""The answer records as columns, and the effect of any threshold on a pair of models, in logarithmic time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.calibration.thresholds import METHODS, Examples, Outcome
from justenough.evaluation import Table, table_of
from justenough.importing import ImportOptions, import_file
from justenough.importing.records import SIGNAL
from justenough.signal.signal import Signal
from justenough.trace import Trace

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

STAND_IN: Final[Signal] = SIGNAL
PAPERS: Final = ("mean", "info", "bayes", "universal")
"""The paper's four thresholds."""


class Records(NamedTuple):
    """The traces of one step, by model and in the order of their questions, and the number of bad rows."""

    by_model: Mapping[str, Sequence[Trace]]
    bad: int


def load(path: Path) -> Records:
    """All answers of a table, by the library's own importer."""
    loaded = import_file(path, format="records", options=ImportOptions(model="all"))
    by_model: dict[str, list[Trace]] = {}
    for trace in loaded.traces:
        by_model.setdefault(trace.model, []).append(trace)
    for traces in by_model.values():
        traces.sort(key=lambda trace: trace.id)
    return Records(dict(sorted(by_model.items())), len(loaded.bad))


def paired(records: Records, first: str, then: str) -> list[Trace]:
    """Step 1 by `first` and step 2 by `then`, on the questions of both."""
    later = {trace.id: trace.steps[0] for trace in records.by_model[then]}
    return [
        Trace(
            id=trace.id,
            task=trace.task,
            model=trace.model,
            group=trace.group,
            signal=trace.signal,
            steps=(trace.steps[0], later[trace.id]),
        )
        for trace in records.by_model[first]
        if trace.id in later
    ]


def pair_table(records: Records, first: str, then: str) -> Table:
    """The columns of a pair."""
    return table_of(paired(records, first, then), STAND_IN)


class At(NamedTuple):
    """The effect of stopping at a threshold, in fractions of all problems."""

    stopped: float
    change: float
    """Accuracy against step 2 for all."""
    saving_vs_last: float
    """In tokens, against step 2 alone."""
    harm: float
    rescue: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A pair's problems sorted by signal, with running sums, so each threshold is one look-up. Step 1 decides."""

    signal: Floats
    """(m,): ascending, for the problems that have a signal."""
    sums: Floats
    """(m + 1, 4): sums of step 1 right minus step 2 right, of step 2's tokens, of harm and of rescue."""
    n: int
    first_tokens: float
    last_tokens: float

    @classmethod
    def of(cls, table: Table) -> Curve:
        """Build it from a table of two steps."""
        bits = table.bits[:, 0]
        order = np.argsort(np.where(np.isfinite(bits), bits, np.inf), kind="stable")[: int(np.isfinite(bits).sum())]
        first, last = table.correct[:, 0], table.correct[:, -1]
        columns = np.stack(
            [
                first.astype(float) - last.astype(float),
                table.last_only,
                (~first & last).astype(float),
                (first & ~last).astype(float),
            ],
            axis=1,
        )
        sums = np.concatenate((np.zeros((1, 4)), np.cumsum(columns[order], axis=0)))
        return cls(bits[order], sums, len(table), float(table.spent[:, 0].sum()), float(table.last_only.sum()))

    def at(self, threshold: float | None) -> At:
        """The effect at a threshold; None never stops."""
        count = 0 if threshold is None else int(np.searchsorted(self.signal, threshold, side="right"))
        change, skipped, harm, rescue = self.sums[count]
        return At(
            stopped=count / self.n,
            change=float(change) / self.n,
            saving_vs_last=float((skipped - self.first_tokens) / self.last_tokens),
            harm=float(harm) / self.n,
            rescue=float(rescue) / self.n,
        )


def fit(method: str, examples: Examples) -> Outcome:
    """The outcome of a method with its default settings."""
    return METHODS[method]().fit(examples)


def rounded(value: object, digits: int = 4) -> object:
    """The value with rounded numbers, for readable JSON; NaN becomes null."""
    if isinstance(value, float):
        return round(value, digits) if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): rounded(item, digits) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return rounded(value.tolist(), digits)
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    return value
