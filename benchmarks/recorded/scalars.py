"""Which signal tells most on the records: the mean, its sum over the answer, the length alone, or both combined.

Of each answer one scalar and its length were kept, so these are the poolings that can be had. The combination is fitted
on one half of a model's answered questions; all are judged on the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.stats import rankdata

from benchmarks.recorded.data import STAND_IN, Bools, Floats, Records
from benchmarks.recorded.emergence import KINDS, kind_of
from benchmarks.recorded.show import table as show_table
from justenough.signal.combination import LENGTH, MINIMUM, RECORDED, fit_combination
from justenough.stats import Estimate, paired_bootstrap
from justenough.stats.text import points
from justenough.trace import Trace

OTHERS: Final = ("sum", "length", "combination")
_Z: Final = 1.959964
"""Of a two-sided 95 % interval."""


class Told(NamedTuple):
    """A model's AUROC, right against wrong at step 1."""

    mean: float
    beside: dict[str, Estimate]
    """Of the others, less the mean's, paired."""


def told(traces: Sequence[Trace], *, seed: int = 0) -> Told | None:
    """On the half of the answered questions that no combination saw; None where too few have a signal."""
    steps = [trace.steps[0] for trace in traces if trace.steps[0].uncertainty is not None]
    answered = [step for step in steps if not step.is_unanswered]
    if len(answered) < 2 * MINIMUM:
        return None
    order = np.random.default_rng(seed).permutation(len(answered))
    fitting, judging = ([answered[int(at)] for at in part] for part in np.array_split(order, 2))
    fitted = fit_combination(
        [step.measured(STAND_IN) for step in fitting],
        np.array([step.is_correct for step in fitting]),
        inputs=(RECORDED, LENGTH),
    )
    scalar = np.array([step.uncertainty for step in judging], dtype=np.float64)
    length = np.array([step.tokens for step in judging], dtype=np.float64)
    right = np.array([step.is_correct for step in judging])
    combined = np.array([fitted.value(step.measured(STAND_IN)) for step in judging], dtype=np.float64)
    others = {"sum": scalar * length, "length": length, "combination": combined}
    return Told(
        float(_placed(scalar, right).of_right.mean()),
        {name: difference(values, scalar, right) for name, values in others.items()},
    )


class _Placed(NamedTuple):
    """Of each answer, the share of the other kind's that it stands on the right side of, ties half; their mean is the
    AUROC."""

    of_right: Floats
    of_wrong: Floats


def _placed(values: Floats, right: Bools) -> _Placed:
    ranks, rights, wrongs = rankdata(values), values[right], values[~right]
    return _Placed(
        1 - (ranks[right] - rankdata(rights)) / len(wrongs),
        (ranks[~right] - rankdata(wrongs)) / len(rights),
    )


def difference(values: Floats, base: Floats, right: Bools) -> Estimate:
    """AUROC of one signal less another's on the same answers, with DeLong's interval (Biometrics 44, 1988)."""
    one, other = _placed(values, right), _placed(base, right)
    gaps = [mine - theirs for mine, theirs in zip(one, other, strict=True)]
    error = math.sqrt(sum(float(gap.var(ddof=1)) / len(gap) for gap in gaps))
    value = float(gaps[0].mean())
    return Estimate(value, value - _Z * error, value + _Z * error, len(right))


def by_kind(found: Mapping[str, Told]) -> dict[str, dict[str, Estimate]]:
    """Mean difference over the models of each kind, which its interval resamples."""
    kinds = {kind: [made for model, made in found.items() if kind_of(model) == kind] for kind in KINDS}
    return {
        kind: {name: paired_bootstrap(np.array([one.beside[name].value for one in made])) for name in OTHERS}
        for kind, made in kinds.items()
        if made
    }


def show(records: Records) -> object:
    """Every model's, and by kind of post-training."""
    print(
        "\n== Signals: AUROC beside the mean's, in hundredths, on questions that the combination was not fitted on;"
        "\n`+ / −` counts models whose own interval excludes 0; the intervals shown resample the models"
    )
    found = {model: made for model, traces in records.by_model.items() if (made := told(traces)) is not None}
    if left := sorted(set(records.by_model) - set(found)):
        print(f"left out, fewer than {2 * MINIMUM} answers with a signal: {', '.join(left)}")
    rows = []
    for kind, differences in by_kind(found).items():
        of_kind = [made for model, made in found.items() if kind_of(model) == kind]
        cells = [kind, str(len(of_kind)), f"{float(np.median([made.mean for made in of_kind])):.3f}"]
        for name in OTHERS:
            better = sum((made.beside[name].low or 0) > 0 for made in of_kind)
            worse = sum((made.beside[name].high or 0) < 0 for made in of_kind)
            cells += [points(differences[name]), f"{better} / {worse}"]
        rows.append(cells)
    head = ["models", "number", "median AUROC of the mean"]
    for name in OTHERS:
        head += [name, "+ / −"]
    if rows:
        show_table(head, rows)
    return {
        model: {"mean": made.mean, "beside": {name: one._asdict() for name, one in made.beside.items()}}
        for model, made in found.items()
    }
