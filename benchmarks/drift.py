"""How often the drift alarm is raised where nothing has changed, by the size of the calibration.

    python -m benchmarks.drift

Calibration and traffic have the same distribution of entropies, normal or lognormal. Counted are calibrations whose
first window is beyond the limit, and calibrations that raise the alarm within 100 windows of 64 requests each.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from benchmarks import timing
from justenough.gateway.learn.drift import CHANCE, REPEATS, WINDOW
from justenough.stats import Estimate, wilson

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Scores = Literal["normal", "lognormal"]

SIZES: Final = (10, 40, 300)
WINDOWS: Final = 100
CALIBRATIONS: Final = 100_000
_POOL: Final = 400_000
_AT_ONCE: Final = 5_000


class Row(NamedTuple):
    """False alarms at one size of calibration, each rate with its 95 % interval."""

    scores: Scores
    n: int
    first_window: Estimate
    """Calibrations whose first window is beyond the limit."""
    alarm: Estimate
    """Calibrations that raise the alarm within `WINDOWS` windows."""


def measured(scores: Scores, n: int, *, calibrations: int = CALIBRATIONS, seed: int = 0) -> Row:
    """Simulate calibrations of `n` examples and the windows that follow each."""
    rng = np.random.default_rng(seed)
    # Means of windows are drawn from a pool: one for each window of each calibration would take hours.
    pool = np.concatenate([_drawn(rng, scores, (_AT_ONCE, WINDOW)).mean(axis=1) for _ in range(_POOL // _AT_ONCE)])
    first = alarms = 0
    for _ in range(calibrations // _AT_ONCE):
        sample = _drawn(rng, scores, (_AT_ONCE, n))
        mean, sd = sample.mean(axis=1, keepdims=True), sample.std(axis=1, ddof=1, keepdims=True)
        windows = rng.choice(pool, size=(_AT_ONCE, WINDOWS))
        beyond = beyond_limit(windows, mean, sd, n)
        first += int(beyond[:, 0].sum())
        alarms += int(raises_alarm(beyond).sum())
    total = calibrations // _AT_ONCE * _AT_ONCE
    rates = wilson(first, total), wilson(alarms, total)
    assert rates[0] is not None
    assert rates[1] is not None
    return Row(scores, n, rates[0], rates[1])


def beyond_limit(windows: Floats, mean: Floats, sd: Floats, n: int) -> Bools:
    """Whether each window's mean (m, w) is farther from the calibration's, (m, 1), than `Drift` allows."""
    limit = float(student.ppf(1 - CHANCE / 2, n - 1)) * np.sqrt(1 / WINDOW + 1 / n)
    far: Bools = np.abs(windows - mean) > limit * sd
    return far


def raises_alarm(beyond: Bools) -> Bools:
    """Whether some windows in a row (m, w) are beyond the limit; shape (m,)."""
    count = beyond.shape[1] - REPEATS + 1
    runs: Bools = np.all([beyond[:, at : at + count] for at in range(REPEATS)], axis=0).any(axis=1)
    return runs


def _drawn(rng: np.random.Generator, scores: Scores, shape: tuple[int, int]) -> Floats:
    values = rng.standard_normal(shape)
    return values if scores == "normal" else np.exp(0.8 * values)


def main() -> None:
    """Print the table and write it to `benchmarks/results/drift.json`."""
    rows = [measured(scores, n) for scores in ("normal", "lognormal") for n in SIZES]
    print(f"false alarms where nothing has changed; {CALIBRATIONS:,} calibrations of each size")
    print(f"{'scores':<10} {'n':>4}  {'first window beyond':<28} alarm within {WINDOWS} windows")
    for row in rows:
        print(f"{row.scores:<10} {row.n:>4}  {_shown(row.first_window):<28} {_shown(row.alarm)}")
    timing.write(
        "drift", {f"{row.scores}, {row.n}": {"first_window": row.first_window, "alarm": row.alarm} for row in rows}
    )


def _shown(rate: Estimate) -> str:
    low, high = rate.interval or (0.0, 1.0)
    return f"{rate.value:.4%} [{low:.4%}, {high:.4%}]"


if __name__ == "__main__":
    main()
