"""The bench replays rules in one pass and refuses traces of several kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from justenough.calibration.calibration import calibrate
from justenough.calibration.thresholds import METHODS
from justenough.errors import InputError, ModelMismatch, SignalMismatch
from justenough.evaluation.bench import Bench, Seen, drawn
from justenough.evaluation.table import table_of
from justenough.rules.rivals import LIVE, Deer
from justenough.rules.rules import AllSteps, FixedSteps, Oracle, Rule
from justenough.trace import Trace, data_fingerprint
from tests.builders import SIGNAL, population, step, trace

TRACES = population(60, seed=6, steps=3)


def bench(traces: Sequence[Trace] = TRACES) -> Bench:
    return Bench(traces, SIGNAL, decide="first", margin=0.01, seed=0, resamples=20)


def test_what_is_seen_names_the_data() -> None:
    seen = Seen(None)
    named = [replace(one, family=f"f{n % 2}", task=f"t{n % 3}") for n, one in enumerate(TRACES[:6])]
    assert list(seen.through(named)) == named
    assert seen.tasks == {"t0", "t1", "t2"}
    assert seen.families == ["f0", "f1"] * 3
    assert seen.models == {"model"}
    assert seen.first == named[0]
    assert seen.fingerprint == data_fingerprint(named)


@pytest.mark.parametrize(
    ("other", "message"),
    [({"model": "other"}, "mix model"), ({"shape": "streaming"}, "mix model")],
)
def test_traces_of_several_kinds_are_refused(other: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(Seen(None).through([TRACES[0], replace(TRACES[1], **other)]))  # type: ignore[arg-type]


def test_traces_of_another_signal_are_refused_at_the_first() -> None:
    stranger = replace(TRACES[1], signal=replace(SIGNAL, top_k=5))
    through = Seen(None).through([TRACES[0], stranger, TRACES[2]])
    assert next(through) == TRACES[0]
    with pytest.raises(SignalMismatch):
        next(through)


def test_traces_that_the_calibration_is_not_for_are_refused() -> None:
    made = calibrate(population(100, seed=1))
    with pytest.raises(ModelMismatch):
        list(Seen(made).through(population(3, model="other")))


def test_rules_are_replayed_together_as_each_alone() -> None:
    rules: list[Rule] = [AllSteps(), FixedSteps(1), FixedSteps(2), Oracle("every")]
    together = bench().replayed(rules)
    for rule in rules:
        stopped = [rule.replay(one) for one in TRACES]
        done = together[rule.name].done
        assert done.tokens.tolist() == [row.tokens for row in stopped]
        assert done.correct.tolist() == [row.correct for row in stopped]
        assert done.unanswered.tolist() == [row.unanswered for row in stopped]
        assert done.early.tolist() == [row.early for row in stopped]


def test_a_rule_without_its_field_is_listed_as_missing() -> None:
    made = bench()
    assert set(made.replayed([AllSteps(), Deer()])) == {"all-steps"}
    assert "deer:0.95" in made.missing


def test_rules_that_need_a_live_model_are_listed_as_missing() -> None:
    made = bench()
    chosen = made.rules("calm,all-steps", None, made.settings, size=5, draws=2, recommended=None, pooled=None)
    assert set(chosen) == {"all-steps"}
    assert made.missing == {"calm": LIVE["calm"]}


def test_an_oracle_saves_more_where_it_may_decide_later() -> None:
    made = bench()
    assert made.oracle_saving == made.oracle_savings["first"] < made.oracle_savings["every"]
    oracle = made.replayed([Oracle("every")])["oracle"]
    assert oracle.oracle_saving == made.oracle_savings["every"]
    full = made.table.spent[:, -1].sum()
    assert made.oracle_savings["every"] == pytest.approx(1 - oracle.done.tokens.sum() / full)


def test_separation_leaves_out_what_has_no_signal() -> None:
    silent = trace(step(correct=True, tokens=3), *TRACES[0].steps[1:], id="silent")
    with_silent, without = bench([*TRACES, silent]).separation(), bench().separation()
    assert (with_silent.right, with_silent.wrong) == (without.right, without.wrong)
    assert with_silent.cohens_d == without.cohens_d


def test_few_traces_are_drawn_by_halves() -> None:
    made = bench(TRACES[:6])
    draws, _ = drawn(made, METHODS["mean"](), made.settings, n=10, draws=3, pool=None)
    assert draws.n == 3
    pooled, _ = drawn(made, METHODS["mean"](), made.settings, n=10, draws=3, pool=table_of(TRACES[:8], SIGNAL))
    assert pooled.n == 8


def test_without_any_signal_there_is_nothing_to_draw() -> None:
    silent = [trace(step(correct=True, tokens=3), step(0.1), id=str(n)) for n in range(4)]
    made = bench(silent)
    assert not np.isfinite(made.table.bits[:, 0]).any()
    with pytest.raises(InputError, match="no step 1 has a usable signal"):
        drawn(made, METHODS["mean"](), made.settings, n=2, draws=1, pool=None)
