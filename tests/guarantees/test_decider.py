"""The promise of a decider, which is fitted and certified on one set of labels, by simulation."""

import math

import numpy as np
import pytest

from justenough.calibration.calibration import calibrate
from justenough.errors import NotEnoughExamples, NothingCertified
from justenough.evaluation.table import table_of
from justenough.gate import GateSettings
from tests.builders import SIGNAL
from tests.unit.calibration.test_decider import runs

EPSILON, DELTA, N, DRAWS = 0.08, 0.2, 160, 40


@pytest.mark.parametrize("give_up", [False, True])
def test_harm_exceeds_its_limit_in_no_more_draws_than_promised(give_up: bool) -> None:
    pool = runs(1500, seed=5, steps=4, marked=give_up)
    table, rng = table_of(pool, SIGNAL), np.random.default_rng(6)
    broken = certified = 0
    for draw in range(DRAWS):
        chosen = [pool[at] for at in rng.choice(len(pool), size=N, replace=False)]
        try:
            made = calibrate(
                chosen,
                method="decider",
                decide="every",
                max_harm=EPSILON,
                confidence=1 - DELTA,
                seed=draw,
                give_up=give_up,
            )
        except (NothingCertified, NotEnoughExamples):
            continue
        certified += 1
        right = table.correct[np.arange(len(pool)), table.stops(GateSettings.of(made))]
        broken += float((~right & table.correct[:, -1]).mean()) > EPSILON
    assert certified > DRAWS / 2
    assert broken / DRAWS <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / DRAWS)
