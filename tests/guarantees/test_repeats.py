"""Several runs of one problem: the promise of a certificate holds for problems, by simulation with `calibrate`."""

import math
from dataclasses import replace

import numpy as np
import pytest

from justenough.calibration.calibration import calibrate
from justenough.errors import NothingCertified
from justenough.trace import Trace
from tests.builders import SIGNAL, step, trace

PROBLEMS, RUNS, DRAWS = 60, 10, 40
EPSILON, DELTA = 0.1, 0.1
POOL = 400


def pool() -> list[list[Trace]]:
    """Problems whose runs are alike: a third of them is harmed at 0.2 bits and more, the others never are."""
    rng = np.random.default_rng(0)
    made: list[list[Trace]] = []
    for number in range(POOL):
        bits, harmful = float(rng.random()), bool(rng.random() < 1 / 3)
        wrong = harmful and bits > 0.2
        first = step(bits, answer="2" if wrong else "1", correct=not wrong)
        made.append([trace(first, step(0.1), id=f"p-{number}", seed=run) for run in range(RUNS)])
    return made


def broken(*, named_apart: bool) -> float:
    """The share of calibrations whose threshold has a greater harm than promised."""
    rng = np.random.default_rng(1)
    problems, count = pool(), 0
    truth = [(runs[0].steps[0].bits(SIGNAL) or 0.0, not runs[0].steps[0].correct) for runs in problems]
    for draw in range(DRAWS):
        chosen = [problems[at] for at in rng.choice(POOL, size=PROBLEMS)]
        # A problem that is drawn twice is another one each time.
        traces = [
            replace(run, id=f"{at}-{run.seed}" if named_apart else str(at))
            for at, runs in enumerate(chosen)
            for run in runs
        ]
        try:
            threshold = calibrate(
                traces, method="risk", max_harm=EPSILON, confidence=1 - DELTA, seed=draw, force=True
            ).threshold
        except NothingCertified:
            continue
        assert threshold is not None
        count += sum(wrong and bits <= threshold for bits, wrong in truth) > EPSILON * POOL
    return count / DRAWS


def test_the_promise_holds_where_each_problem_has_ten_runs() -> None:
    assert broken(named_apart=False) <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / DRAWS)


def test_counting_every_run_would_break_it() -> None:
    assert broken(named_apart=True) > 0.22


@pytest.mark.parametrize("method", ["risk", "net"])
def test_thirty_problems_in_twenty_copies_are_thirty(method: str) -> None:
    copies = [replace(trace(step(0.1), step(0.1), id=f"p-{at}"), seed=seed) for at in range(30) for seed in range(20)]
    with pytest.raises(NothingCertified) as refused:
        calibrate(copies, method=method)
    assert refused.value.needed == 299 - 30
