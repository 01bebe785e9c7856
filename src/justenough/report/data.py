"""What the report shows besides the evaluation's figures: distributions, curves and single problems."""

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
from justenough.evaluation.draws import Sized, calibration_sizes
from justenough.evaluation.evaluate import unused_by
from justenough.evaluation.figures import gate_outcomes, saving_and_change
from justenough.gate import GateSettings
from justenough.report.budget import Budget, budget_of
from justenough.report.tokenkinds import TokenKind, token_kinds
from justenough.stats import Estimate, wilson
from justenough.trace import Json, Shape, Trace
from justenough.trace.files import Traces

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BINS: Final = 36
PROBLEMS: Final = 500
"""Problems shown one by one."""
RELIABILITY_BINS: Final = 10
ROC_POINTS: Final = 200
SWEEP: Final = 12
SCORE: Final = "decider score"
"""Name of P(stopping now loses a right answer), which a decider estimates."""


class Sheet(NamedTuple):
    """A table with a title and a note, before it has a form."""

    key: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


class Scale(NamedTuple):
    """The axis of the signal; logarithmic if most values are close to zero."""

    kind: Literal["log", "linear"]
    low: float
    high: float

    def edges(self, bins: int) -> Floats:
        """Limits of bins of equal width, shape (bins + 1,)."""
        return (np.geomspace if self.kind == "log" else np.linspace)(self.low, self.high, bins + 1)


class Bin(NamedTuple):
    """Number of problems whose signal at step 1 is within the limits."""

    low: float
    high: float
    right: int
    wrong: int


class ReliabilityBin(NamedTuple):
    """P(right) among problems with a similar signal."""

    low: float
    high: float
    middle: float
    """Median signal."""
    share: Estimate
    """Share right at step 1, with Wilson's interval."""


class Swept(NamedTuple):
    """The figures of the gate at one threshold."""

    threshold: float | None
    stopped: float
    accuracy: float
    change: float
    saving: float | None
    harm: float
    rescue: float


class Family(NamedTuple):
    """The figures of one family of problems under the gate that the report shows."""

    name: str
    problems: int
    first: float
    full: float
    gated: float
    saving: float | None
    stopped: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """All data that a report shows, in any form."""

    evaluation: Evaluation
    traces: tuple[Trace, ...]
    """The first of the evaluated problems, which are shown one by one; `table` holds all of them."""
    calibration: Calibration | None
    settings: GateSettings
    """The gate whose decisions are shown for each problem."""
    table: Table
    scores: Floats
    """(n, K): what the gate compares with its threshold: the score of its decider, or the signal."""
    command: str
    demo: Mapping[str, Json]
    scale: Scale
    histogram: tuple[Bin, ...]
    roc: tuple[tuple[float, float], ...]
    """(share of right answers above τ, share of wrong answers above τ), from high to low τ."""
    reliability: tuple[ReliabilityBin, ...]
    sweep: tuple[Swept, ...]
    families: tuple[Family, ...]
    sizes: tuple[Sized, ...]
    """The threshold of the chosen method for several numbers of labels."""
    token_kinds: tuple[TokenKind, ...]
    """The kinds of tokens in the first steps of `traces`; empty without their texts."""
    budget: Budget | None
    """Policies at equal totals; None if there are no tokens to divide."""

    @property
    def unit(self) -> str:
        """Unit of the threshold."""
        return self.evaluation.signal.unit if self.settings.decider is None else SCORE

    @property
    def quantity(self) -> str:
        """Name of what the gate compares with its threshold."""
        return self.signal_name if self.settings.decider is None else SCORE

    @property
    def signal_name(self) -> str:
        """Name of the signal."""
        return signal_name(self.evaluation)


def contents(
    evaluation: Evaluation,
    traces: Traces,
    *,
    calibration: Calibration | None,
    command: str,
    demo: Mapping[str, Json],
) -> Contents:
    """Compute what the report shows; `InputError` if the traces or the calibration are not those of the evaluation."""
    if evaluation.calibrated != (calibration is not None):
        raise InputError(
            "the evaluation and the calibration do not belong together",
            hint="evaluate with the calibration that the report gets",
        )
    remaining = unused_by(traces, calibration)
    seen, first_traces = Seen(None), list[Trace]()

    def first_ones() -> Iterator[Trace]:
        for trace in seen.through(remaining):
            if len(first_traces) < PROBLEMS:
                first_traces.append(trace)
            yield trace

    table = table_of(first_ones(), evaluation.signal)
    if seen.fingerprint != evaluation.data_fingerprint:
        raise InputError("these are not the traces of the evaluation", hint="evaluate these traces first")
    settings = _settings(evaluation, first_traces[0].shape, calibration)
    scores = table.scores(settings.decider)
    usable = np.isfinite(scores[:, 0])
    first, correct = scores[usable, 0], table.correct[usable, 0]
    every = scores[np.isfinite(scores)]
    axis, deciding = scale(every), first if settings.decide == "first" else every
    # The spread of a decider over other labels is not measured: each draw would fit it anew.
    method = METHODS.get(evaluation.method)
    return Contents(
        evaluation=evaluation,
        traces=tuple(first_traces),
        calibration=calibration,
        settings=settings,
        table=table,
        scores=scores,
        command=command,
        demo=demo,
        scale=axis,
        histogram=histogram(first, correct, axis),
        roc=roc(first, correct),
        reliability=reliability(first, correct),
        sweep=tuple(swept(table, settings, threshold) for threshold in _sweep_thresholds(deciding)),
        families=_families(seen.families, table, settings),
        sizes=() if method is None else calibration_sizes(table, method(), settings, seed=evaluation.seed),
        token_kinds=tuple(token_kinds(first_traces)),
        budget=budget_of(
            table, settings, calibrated=calibration is not None, seed=evaluation.seed, quantity=signal_name(evaluation)
        ),
    )


def signal_name(evaluation: Evaluation) -> str:
    """`entropy`, or the unit of another signal."""
    unit = evaluation.signal.unit
    return "entropy" if unit == "bits" else unit


def _settings(evaluation: Evaluation, shape: Shape, calibration: Calibration | None) -> GateSettings:
    if calibration is not None:
        return replace(GateSettings.of(calibration), decide=evaluation.decide)
    return GateSettings(
        threshold=evaluation.thresholds.get(evaluation.method),
        signal=evaluation.signal,
        shape=shape,
        decide=evaluation.decide,
        max_steps=max(evaluation.steps, 1),
    )


def scale(values: Floats) -> Scale:
    """The axis for values (n,)."""
    if not len(values) or values.max() <= 0:
        return Scale("linear", 0.0, 1.0)
    high = float(values.max())
    low, typical = np.quantile(values, (0.05, 0.5))
    if typical > 0 and high / typical > 12 and high / max(low, 1e-12) > 50:
        positive = values[values > 0]
        # Values below a ten-thousandth of the largest are put at the left end.
        return Scale("log", float(max(positive.min(), high / 1e4)) * 0.9, high * 1.1)
    return Scale("linear", 0.0, high * 1.04)


def histogram(bits: Floats, correct: Bools, axis: Scale) -> tuple[Bin, ...]:
    """Counts of right and wrong first answers; values outside the axis are counted in its end bins."""
    edges = axis.edges(BINS)
    place = np.clip(np.searchsorted(edges, bits, side="right") - 1, 0, BINS - 1)
    right = np.bincount(place[correct], minlength=BINS)
    wrong = np.bincount(place[~correct], minlength=BINS)
    return tuple(Bin(float(edges[at]), float(edges[at + 1]), int(right[at]), int(wrong[at])) for at in range(BINS))


def roc(bits: Floats, correct: Bools) -> tuple[tuple[float, float], ...]:
    """(share of right above τ, share of wrong above τ), from high to low τ; empty without both kinds of answers."""
    right, wrong = np.sort(bits[correct]), np.sort(bits[~correct])
    if not len(right) or not len(wrong):
        return ()
    thresholds = np.unique(bits)[::-1]
    if len(thresholds) > ROC_POINTS:
        thresholds = thresholds[np.unique(np.linspace(0, len(thresholds) - 1, ROC_POINTS).astype(int))]
    above = [(1 - np.searchsorted(kind, thresholds, side="right") / len(kind)).tolist() for kind in (right, wrong)]
    return (*zip(*above, strict=True), (1.0, 1.0))


def reliability(bits: Floats, correct: Bools) -> tuple[ReliabilityBin, ...]:
    """P(right | signal) in bins with about the same number of problems; equal values share a bin."""
    order = np.argsort(bits, kind="stable")
    bins: list[ReliabilityBin] = []
    most = max(1, min(RELIABILITY_BINS, len(bits) // 10))
    start = 0
    for number in range(1, most + 1):
        end = round(number * len(bits) / most)
        while start < end < len(bits) and bits[order[end]] == bits[order[end - 1]]:
            end += 1
        rows = order[start:end]
        share = wilson(int(correct[rows].sum()), len(rows))
        if share is not None:
            values = bits[rows]
            bins.append(ReliabilityBin(float(values[0]), float(values[-1]), float(np.median(values)), share))
        start = max(start, end)
    return tuple(bins)


def _sweep_thresholds(bits: Floats) -> list[float]:
    """Thresholds for the table that replaces the slider: quantiles of the measured values."""
    if not len(bits):
        return []
    return [float(value) for value in np.unique(np.quantile(bits, np.linspace(0, 1, SWEEP), method="lower"))]


def swept(table: Table, settings: GateSettings, threshold: float | None) -> Swept:
    """The figures of the gate at a given threshold."""
    done = gate_outcomes(table, replace(settings, threshold=threshold))
    saving, change = saving_and_change(table, done)
    return Swept(
        threshold=threshold,
        stopped=float(done.early.mean()),
        accuracy=float(done.correct.mean()),
        change=change,
        saving=saving if table.spent[:, -1].any() else None,
        harm=float(done.harm.mean()),
        rescue=float(done.rescue.mean()),
    )


def _families(of_problem: Sequence[str], table: Table, settings: GateSettings) -> tuple[Family, ...]:
    names, rows = np.array(of_problem), list[Family]()
    for name in np.unique(names):
        part = table.rows(names == name)
        gate = swept(part, settings, settings.threshold)
        first, full = float(part.correct[:, 0].mean()), float(part.correct[:, -1].mean())
        rows.append(Family(str(name) or "–", len(part), first, full, gate.accuracy, gate.saving, gate.stopped))
    return tuple(rows)
