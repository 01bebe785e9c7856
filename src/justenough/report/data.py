"""What the report shows beyond the evaluation's figures: distributions, curves and single problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.calibration.calibration import Calibration
from justenough.calibration.thresholds import METHODS
from justenough.errors import InputError
from justenough.evaluation import Evaluation, Table, table_of
from justenough.evaluation.bench import Seen
from justenough.evaluation.evaluate import kept_of
from justenough.evaluation.figures import outcomes
from justenough.evaluation.sizes import Sized, calibration_sizes
from justenough.gate import GateSettings
from justenough.report.budget import Budget, budget_of
from justenough.stats import Estimate, wilson
from justenough.trace import Json, Shape, Trace
from justenough.trace.stream import Traces

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BINS: Final = 36
PROBLEMS: Final = 500
"""Problems shown one by one."""
RELIABILITY_BINS: Final = 10
ROC_POINTS: Final = 200
SWEEP: Final = 12


class Scale(NamedTuple):
    """The axis of the signal: where most values crowd near zero, only a logarithm shows them."""

    kind: Literal["log", "linear"]
    low: float
    high: float

    def edges(self, bins: int) -> Floats:
        """Limits of equally wide bins, shape (bins + 1,)."""
        if self.kind == "log":
            return np.geomspace(self.low, self.high, bins + 1)
        return np.linspace(self.low, self.high, bins + 1)


class Bin(NamedTuple):
    """Problems whose first step's signal is within the limits."""

    low: float
    high: float
    right: int
    wrong: int


class ReliabilityBin(NamedTuple):
    """P(right) among problems of like signal."""

    low: float
    high: float
    middle: float
    """Median signal."""
    share: Estimate
    """Right at step 1, with Wilson's interval."""


class Swept(NamedTuple):
    """What a threshold does to these problems."""

    threshold: float
    stopped: float
    accuracy: float
    change: float
    saving: float | None
    harm: float
    rescue: float


class Family(NamedTuple):
    """A family's figures under the gate shown."""

    name: str
    problems: int
    first: float
    full: float
    gated: float
    saving: float | None
    stopped: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """All that a report shows, in any form."""

    made: Evaluation
    traces: tuple[Trace, ...]
    """The first of the problems evaluated, which are shown one by one; `table` holds all of them."""
    calibration: Calibration | None
    settings: GateSettings
    """The gate whose decisions are shown problem by problem."""
    table: Table
    command: str
    demo: Mapping[str, Json]
    scale: Scale
    histogram: tuple[Bin, ...]
    roc: tuple[tuple[float, float], ...]
    """(right answers above τ, wrong answers above τ) as shares, for falling τ."""
    reliability: tuple[ReliabilityBin, ...]
    sweep: tuple[Swept, ...]
    families: tuple[Family, ...]
    sizes: tuple[Sized, ...]
    """The chosen method's threshold against the number of labels."""
    budget: Budget | None
    """Policies at equal totals; None where there is nothing to give away."""

    @property
    def unit(self) -> str:
        """Of the signal."""
        return self.made.signal.unit

    @property
    def quantity(self) -> str:
        """What the signal is."""
        return "entropy" if self.unit == "bits" else self.unit


def contents(
    made: Evaluation,
    traces: Traces,
    *,
    calibration: Calibration | None,
    command: str,
    demo: Mapping[str, Json],
) -> Contents:
    """Gather what the report shows; raises `InputError` where traces or calibration are not those evaluated."""
    if made.calibrated != (calibration is not None):
        raise InputError("the evaluation and the calibration do not belong together", hint="evaluate again")
    kept = kept_of(traces, calibration)
    seen, first = Seen(None), list[Trace]()

    def watched() -> Iterator[Trace]:
        for trace in seen.through(kept):
            if len(first) < PROBLEMS:
                first.append(trace)
            yield trace

    table = table_of(watched(), made.signal)
    if seen.fingerprint != made.data_fingerprint:
        raise InputError("these are not the traces that were evaluated", hint="evaluate them again")
    settings = _settings(made, first[0].shape, calibration)
    usable = np.isfinite(table.bits[:, 0])
    bits, correct = table.bits[usable, 0], table.correct[usable, 0]
    axis = scale(table.bits[np.isfinite(table.bits)])
    return Contents(
        made=made,
        traces=tuple(first),
        calibration=calibration,
        settings=settings,
        table=table,
        command=command,
        demo=demo,
        scale=axis,
        histogram=histogram(bits, correct, axis),
        roc=roc(bits, correct),
        reliability=reliability(bits, correct),
        sweep=tuple(swept(table, settings, threshold) for threshold in _stations(bits)),
        families=_families(seen.families, table, settings),
        sizes=calibration_sizes(table, METHODS.get(made.method, METHODS["mean"])(), settings, seed=made.seed),
        budget=budget_of(
            table,
            settings,
            calibrated=calibration is not None,
            seed=made.seed,
            quantity="entropy" if made.signal.unit == "bits" else made.signal.unit,
        ),
    )


def _settings(made: Evaluation, shape: Shape, calibration: Calibration | None) -> GateSettings:
    if calibration is not None:
        return replace(GateSettings.of(calibration), decide=made.decide)
    return GateSettings(
        threshold=made.thresholds.get(made.method),
        signal=made.signal,
        shape=shape,
        decide=made.decide,
        max_steps=max(made.steps, 1),
    )


def scale(values: Floats) -> Scale:
    """The axis on which values (n,) are told apart."""
    if not len(values) or values.max() <= 0:
        return Scale("linear", 0.0, 1.0)
    high = float(values.max())
    low, typical = np.quantile(values, (0.05, 0.5))
    if typical > 0 and high / typical > 12 and high / max(low, 1e-12) > 50:
        positive = values[values > 0]
        # Nothing below a ten-thousandth of the largest is worth the room.
        return Scale("log", float(max(positive.min(), high / 1e4)) * 0.9, high * 1.1)
    return Scale("linear", 0.0, high * 1.04)


def histogram(bits: Floats, correct: Bools, axis: Scale) -> tuple[Bin, ...]:
    """Counts of right and wrong first answers; values beyond the axis are in its outermost bins."""
    edges = axis.edges(BINS)
    place = np.clip(np.searchsorted(edges, bits, side="right") - 1, 0, BINS - 1)
    right = np.bincount(place[correct], minlength=BINS)
    wrong = np.bincount(place[~correct], minlength=BINS)
    return tuple(Bin(float(edges[at]), float(edges[at + 1]), int(right[at]), int(wrong[at])) for at in range(BINS))


def roc(bits: Floats, correct: Bools) -> tuple[tuple[float, float], ...]:
    """(right above τ, wrong above τ) as shares, τ falling from the largest value; empty without both kinds."""
    right, wrong = np.sort(bits[correct]), np.sort(bits[~correct])
    if not len(right) or not len(wrong):
        return ()
    thresholds = np.unique(bits)[::-1]
    if len(thresholds) > ROC_POINTS:
        thresholds = thresholds[np.unique(np.linspace(0, len(thresholds) - 1, ROC_POINTS).astype(int))]
    points = [
        (
            float(1 - np.searchsorted(right, threshold, side="right") / len(right)),
            float(1 - np.searchsorted(wrong, threshold, side="right") / len(wrong)),
        )
        for threshold in thresholds
    ]
    return (*points, (1.0, 1.0))


def reliability(bits: Floats, correct: Bools) -> tuple[ReliabilityBin, ...]:
    """P(right | signal) in bins of about equally many problems, ties together."""
    order = np.argsort(bits, kind="stable")
    bins: list[ReliabilityBin] = []
    wanted = max(1, min(RELIABILITY_BINS, len(bits) // 10))
    start = 0
    for number in range(1, wanted + 1):
        end = round(number * len(bits) / wanted)
        while start < end < len(bits) and bits[order[end]] == bits[order[end - 1]]:
            end += 1
        rows = order[start:end]
        share = wilson(int(correct[rows].sum()), len(rows))
        if share is not None:
            values = bits[rows]
            bins.append(ReliabilityBin(float(values[0]), float(values[-1]), float(np.median(values)), share))
        start = max(start, end)
    return tuple(bins)


def _stations(bits: Floats) -> list[float]:
    """Thresholds for the table that stands in for the slider: quantiles of what was measured."""
    return [float(value) for value in np.unique(np.quantile(bits, np.linspace(0, 1, SWEEP), method="lower"))]


def swept(table: Table, settings: GateSettings, threshold: float) -> Swept:
    """The figures of the gate at another threshold."""
    done = outcomes(table, table.stops(replace(settings, threshold=threshold)))
    full = float(table.spent[:, -1].sum())
    accuracy = float(done.correct.mean())
    return Swept(
        threshold=threshold,
        stopped=float(done.early.mean()),
        accuracy=accuracy,
        change=accuracy - float(table.correct[:, -1].mean()),
        saving=float(1 - done.tokens.sum() / full) if full > 0 else None,
        harm=float(done.harm.mean()),
        rescue=float(done.rescue.mean()),
    )


def _families(of_problem: Sequence[str], table: Table, settings: GateSettings) -> tuple[Family, ...]:
    names = np.array(of_problem)
    rows: list[Family] = []
    for name in np.unique(names):
        part = table.rows(names == name)
        done = outcomes(part, part.stops(settings))
        full = float(part.spent[:, -1].sum())
        rows.append(
            Family(
                name=str(name) or "–",
                problems=len(part),
                first=float(part.correct[:, 0].mean()),
                full=float(part.correct[:, -1].mean()),
                gated=float(done.correct.mean()),
                saving=float(1 - done.tokens.sum() / full) if full > 0 else None,
                stopped=float(done.early.mean()),
            )
        )
    return tuple(rows)
