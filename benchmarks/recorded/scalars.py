"""Which signal of the records separates best: the mean, its sum over the answer, the length, or a combination.

The records contain one scalar and the length of each answer, so only these poolings are possible. The combination is
fitted on one half of a model's answered questions; all signals are evaluated on the other half.
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
from justenough.signal.combination import LENGTH, MINIMUM, RECORDED, fit_rows, inputs_of
from justenough.stats import Estimate, paired_bootstrap
from justenough.stats.text import points
from justenough.trace import Trace

OTHERS: Final = ("sum", "length", "combination")
_Z: Final = 1.959964
"""Normal quantile of a two-sided 95 % interval."""


class ModelAuroc(NamedTuple):
    """The AUROC of a model, right against wrong answers at step 1."""

    mean: float
    beside: dict[str, Estimate]
    """AUROC of the other signals minus that of the mean, paired."""


def model_auroc(traces: Sequence[Trace], *, seed: int = 0) -> ModelAuroc | None:
    """On the half of the answered questions that the combination was not fitted on; None if too few have a signal."""
    steps = [trace.steps[0] for trace in traces if trace.steps[0].uncertainty is not None]
    answered = [step for step in steps if not step.is_unanswered]
    if len(answered) < 2 * MINIMUM:
        return None
    order = np.random.default_rng(seed).permutation(len(answered))
    fitting, judging = ([answered[int(at)] for at in part] for part in np.array_split(order, 2))
    fitted = fit_rows(
        np.array([inputs_of(step.measured(STAND_IN)) for step in fitting], dtype=np.float64),
        np.array([step.is_correct for step in fitting]),
        inputs=(RECORDED, LENGTH),
    )
    scalar = np.array([step.uncertainty for step in judging], dtype=np.float64)
    length = np.array([step.tokens for step in judging], dtype=np.float64)
    right = np.array([step.is_correct for step in judging])
    combined = np.array([fitted.value(step.measured(STAND_IN)) for step in judging], dtype=np.float64)
    others = {"sum": scalar * length, "length": length, "combination": combined}
    return ModelAuroc(
        float(_placed(scalar, right).of_right.mean()),
        {name: difference(values, scalar, right) for name, values in others.items()},
    )


class _Placed(NamedTuple):
    """For each answer, the share of answers of the other kind that it is ranked correctly against; ties count half. The
    mean is the AUROC."""

    of_right: Floats
    of_wrong: Floats


def _placed(values: Floats, right: Bools) -> _Placed:
    ranks, rights, wrongs = rankdata(values), values[right], values[~right]
    return _Placed(
        1 - (ranks[right] - rankdata(rights)) / len(wrongs),
        (ranks[~right] - rankdata(wrongs)) / len(rights),
    )


def difference(values: Floats, base: Floats, right: Bools) -> Estimate:
    """AUROC of one signal minus another's on the same answers, with DeLong's interval (Biometrics 44, 1988)."""
    one, other = _placed(values, right), _placed(base, right)
    gaps = [mine - theirs for mine, theirs in zip(one, other, strict=True)]
    error = math.sqrt(sum(float(gap.var(ddof=1)) / len(gap) for gap in gaps))
    value = float(gaps[0].mean())
    return Estimate(value, value - _Z * error, value + _Z * error, len(right))


def by_kind(by_model: Mapping[str, ModelAuroc]) -> dict[str, dict[str, Estimate]]:
    """Mean difference over the models of each kind; the interval resamples the models."""
    kinds = {kind: [result for model, result in by_model.items() if kind_of(model) == kind] for kind in KINDS}
    return {
        kind: {name: paired_bootstrap(np.array([one.beside[name].value for one in result])) for name in OTHERS}
        for kind, result in kinds.items()
        if result
    }


def show(records: Records) -> object:
    """Print the signals for each kind of post-training; return those of every model."""
    print(
        "\n== Signals: difference in AUROC from the mean, in hundredths, on questions not used to fit the combination;"
        "\n`+ / −` counts models whose own interval excludes 0; the intervals here resample the models"
    )
    by_model = {
        model: result for model, traces in records.by_model.items() if (result := model_auroc(traces)) is not None
    }
    if left := sorted(set(records.by_model) - set(by_model)):
        print(f"left out, fewer than {2 * MINIMUM} answers with a signal: {', '.join(left)}")
    rows = []
    for kind, differences in by_kind(by_model).items():
        of_kind = [result for model, result in by_model.items() if kind_of(model) == kind]
        cells = [kind, str(len(of_kind)), f"{float(np.median([result.mean for result in of_kind])):.3f}"]
        for name in OTHERS:
            better = sum((result.beside[name].low or 0) > 0 for result in of_kind)
            worse = sum((result.beside[name].high or 0) < 0 for result in of_kind)
            cells += [points(differences[name]), f"{better} / {worse}"]
        rows.append(cells)
    head = ["models", "number", "median AUROC of the mean"]
    for name in OTHERS:
        head += [name, "+ / −"]
    if rows:
        show_table(head, rows)
    return {
        model: {"mean": result.mean, "beside": {name: one._asdict() for name, one in result.beside.items()}}
        for model, result in by_model.items()
    }
