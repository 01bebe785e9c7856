"""Label-free calibration on recorded pairs: thresholds from agreement of step 1 with step 2 instead of grades.

Where both steps have the same answer, both are right or both are wrong, so a stop there does no harm. So P(stopped, the
answers differ) bounds the harm, and a threshold that is certified on agreement keeps its promise without labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from benchmarks.recorded.data import STAND_IN, Bools, Ints, Records, paired
from benchmarks.recorded.pairs import Pair, methods, pairs
from benchmarks.recorded.show import table
from justenough.calibration.labelled import Labels, examples_of, gathered
from justenough.calibration.thresholds import Examples, Method
from justenough.evaluation import Table, table_of
from justenough.stats import Estimate, paired_bootstrap, saving_bootstrap
from justenough.stats.text import percent, points

LABELS: Final[tuple[Labels, ...]] = ("graded", "agreement")


class Judged(NamedTuple):
    """One kind of labels: fitted on one half of the questions, evaluated by grades on the other, in turn."""

    threshold: float | None
    """From all questions."""
    saving: Estimate | None
    """Against step 2 alone."""
    change: Estimate
    stopped: float
    harm: float


class Distance(NamedTuple):
    """A method without labels compared with the same method with labels."""

    graded: Judged
    agreement: Judged
    off: Estimate | None
    """Label-free threshold minus the labelled one, in standard deviations of the signal; the interval refits both."""
    change: Estimate
    """Further change in accuracy without labels, paired by question."""
    saving: float
    """Further saving."""


class Agreement(NamedTuple):
    """How well agreement replaces correctness."""

    agrees: float
    right: float
    same: float
    """Share of questions where both labels are equal."""


def agreement(graded: Examples, agreed: Examples) -> Agreement:
    """The shares for the same questions under both labels."""
    return Agreement(
        float(agreed.correct.mean()), float(graded.correct.mean()), float((agreed.correct == graded.correct).mean())
    )


def distance(
    columns: Table, examples: Mapping[Labels, Examples], method: Method, *, resamples: int, seed: int = 0
) -> Distance:
    """A method under both labels; `columns` and `examples` contain the same questions, all with a signal."""
    n = len(columns)
    half = np.zeros(n, dtype=bool)
    half[np.random.default_rng(seed).permutation(n)[: n // 2]] = True
    stops = {labels: _cross_fitted(examples[labels], method, half) for labels in LABELS}
    judgements = {labels: _judged(columns, examples[labels], method, stops[labels], resamples) for labels in LABELS}
    first, last = columns.correct[:, 0].astype(float), columns.correct[:, -1].astype(float)
    further = stops["agreement"].astype(float) - stops["graded"].astype(float)
    saved = [each.saving.value for each in judgements.values() if each.saving is not None]
    return Distance(
        judgements["graded"],
        judgements["agreement"],
        _off(examples, method, resamples=resamples, seed=seed),
        paired_bootstrap(further * (first - last), resamples=resamples),
        saved[1] - saved[0] if len(saved) == 2 else float("nan"),
    )


def _cross_fitted(examples: Examples, method: Method, half: Bools) -> Bools:
    stops = np.zeros(len(half), dtype=bool)
    for held in (half, ~half):
        threshold = method.fit(_rows(examples, np.flatnonzero(~held))).threshold
        if threshold is not None:
            stops[held] = examples.entropy[held] <= threshold
    return stops


def _rows(examples: Examples, index: Ints) -> Examples:
    final = examples.final
    return Examples(
        entropy=examples.entropy[index],
        correct=examples.correct[index],
        final=None if final is None else final[index],
    )


def _judged(columns: Table, examples: Examples, method: Method, stops: Bools, resamples: int) -> Judged:
    first, last = columns.correct[:, 0], columns.correct[:, -1]
    tokens = columns.spent[:, 0] + np.where(stops, 0.0, columns.last_only)
    return Judged(
        threshold=method.fit(examples).threshold,
        saving=saving_bootstrap(tokens, columns.last_only, resamples=resamples),
        change=paired_bootstrap(np.where(stops, first.astype(float) - last, 0.0), resamples=resamples),
        stopped=float(stops.mean()),
        harm=float((stops & ~first & last).mean()),
    )


def _off(examples: Mapping[Labels, Examples], method: Method, *, resamples: int, seed: int) -> Estimate | None:
    """None if one has no threshold; without an interval if fewer than half of the resamples have both."""
    graded, agreed = (examples[labels] for labels in LABELS)
    n, scale = len(graded.entropy), float(graded.entropy.std(ddof=1))
    whole = _difference(graded, agreed, method)
    if whole is None:
        return None
    rng = np.random.default_rng(seed)
    draws: list[float] = []
    for _ in range(resamples):
        index = rng.integers(n, size=n)
        if (off := _difference(_rows(graded, index), _rows(agreed, index), method)) is not None:
            draws.append(off / scale)
    if 2 * len(draws) < resamples:
        return Estimate(whole / scale, None, None, n)
    low, high = np.quantile(draws, (0.025, 0.975))
    return Estimate(whole / scale, float(low), float(high), n)


def _difference(graded: Examples, agreed: Examples, method: Method) -> float | None:
    thresholds = [method.fit(each).threshold for each in (graded, agreed)]
    return None if thresholds[0] is None or thresholds[1] is None else thresholds[1] - thresholds[0]


def pair_examples(records: Records, pair: Pair) -> tuple[Table, dict[Labels, Examples]]:
    """The questions of a pair that have a signal, under both labels."""
    traces = [trace for trace in paired(records, *pair) if trace.steps[0].usable_bits(STAND_IN) is not None]
    rows = gathered(traces, signal=STAND_IN).labelled
    return table_of(traces, STAND_IN), {labels: examples_of(rows, labels=labels) for labels in LABELS}


def show(records: Records, *, resamples: int) -> object:
    """Print every method on every pair of one model without and with thinking."""
    print(
        "\n== Label-free: agreement of step 1 with step 2 instead of grades; fitted on one half of the questions"
        "\nand evaluated by grades on the other; `error of τ` in standard deviations, refitted on each resample"
    )
    out: dict[str, object] = {}
    for pair in [pair for pair in pairs(records) if pair.effort]:
        columns, examples = pair_examples(records, pair)
        how = agreement(examples["graded"], examples["agreement"])
        print(
            f"\n{pair.name}: {len(columns)} questions; step 1 agrees in {percent(how.agrees)} and is right in"
            f" {percent(how.right)}; both labels are equal in {percent(how.same)}"
        )
        results = {name: distance(columns, examples, method, resamples=resamples) for name, method in methods().items()}
        rows = [
            [
                name,
                _threshold(result.graded.threshold),
                _threshold(result.agreement.threshold),
                _deviations(result.off),
                f"{_saving(result.graded)} → {_saving(result.agreement)}",
                points(result.graded.change),
                points(result.agreement.change),
                points(result.change),
                f"{percent(result.graded.harm, digits=2)} → {percent(result.agreement.harm, digits=2)}",
            ]
            for name, result in results.items()
        ]
        head = ["method", "τ", "label-free", "error of τ", "saving", "change", "label-free", "difference", "harm"]
        table(head, rows)
        out[pair.name] = {
            "agreement": how._asdict(),
            "methods": {name: _json(result) for name, result in results.items()},
        }
    return out


def _threshold(value: float | None) -> str:
    return "never" if value is None else f"{value:.4f}"


def _saving(judgement: Judged) -> str:
    return percent(None if judgement.saving is None else judgement.saving.value)


def _deviations(off: Estimate | None) -> str:
    if off is None or off.low is None or off.high is None:
        return "–"
    return f"{off.value:+.3f} [{off.low:+.3f}, {off.high:+.3f}]"


def _json(result: Distance) -> dict[str, object]:
    flat = {
        labels: {
            **judgement._asdict(),
            "saving": None if judgement.saving is None else judgement.saving._asdict(),
            "change": judgement.change._asdict(),
        }
        for labels, judgement in (("graded", result.graded), ("agreement", result.agreement))
    }
    off = None if result.off is None else result.off._asdict()
    return {**flat, "off": off, "change": result.change._asdict(), "saving": result.saving}
