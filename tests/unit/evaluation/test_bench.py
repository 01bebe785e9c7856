"""The bench replays rules in one pass and refuses traces of several kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from justenough.calibration.calibration import calibrate
from justenough.calibration.thresholds import METHODS
from justenough.errors import InputError, ModelMismatch, SignalMismatch
from justenough.evaluation.bench import Bench, Seen
from justenough.evaluation.costs import Price
from justenough.gate import Decide
from justenough.rules.rivals import LIVE, Deer
from justenough.rules.rules import AllSteps, EntropyGate, FixedSteps, Oracle, Rule
from justenough.signal.signal import Signal
from justenough.trace import Probe, Trace, data_fingerprint
from tests.builders import SIGNAL, population, step, trace

TRACES = population(60, seed=6, steps=3)


def bench(traces: Sequence[Trace] = TRACES) -> Bench:
    return Bench(traces, SIGNAL, decide="first", seed=0)


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
    subject = calibrate(population(100, seed=1))
    with pytest.raises(ModelMismatch):
        list(Seen(subject).through(population(3, model="other")))


def test_rules_are_replayed_together_as_each_alone() -> None:
    rules: list[Rule] = [AllSteps(), FixedSteps(1), FixedSteps(2), Oracle("every")]
    together = bench().replayed(rules)
    for rule in rules:
        stopped = [rule.replay(one) for one in TRACES]
        done = together[rule.name]
        assert done.tokens.tolist() == [row.tokens for row in stopped]
        assert done.correct.tolist() == [row.correct for row in stopped]
        assert done.unanswered.tolist() == [row.unanswered for row in stopped]
        assert done.early.tolist() == [row.early for row in stopped]


def test_a_rule_without_its_field_is_listed_as_missing() -> None:
    subject = bench()
    assert set(subject.replayed([AllSteps(), Deer()])) == {"all-steps"}
    assert "deer:0.95" in subject.missing


def test_rules_that_need_a_live_model_are_listed_as_missing() -> None:
    subject = bench()
    chosen = subject.rules("calm,all-steps", size=5, draws=2)
    assert set(chosen) == {"all-steps"}
    assert subject.missing == {"calm": LIVE["calm"]}


def test_an_oracle_saves_more_where_it_may_decide_later() -> None:
    subject = bench()
    assert subject.oracle_savings["first"] < subject.oracle_savings["every"]
    oracle = subject.replayed([Oracle("every")])["oracle"]
    assert oracle.oracle_saving == subject.oracle_savings["every"]
    full = subject.table.spent[:, -1].sum()
    assert subject.oracle_savings["every"] == pytest.approx(1 - oracle.tokens.sum() / full)


def test_separation_leaves_out_what_has_no_signal() -> None:
    silent = trace(step(correct=True, tokens=3), *TRACES[0].steps[1:], id="silent")
    with_silent, without = bench([*TRACES, silent]).separation(), bench().separation()
    assert (with_silent.right, with_silent.wrong) == (without.right, without.wrong)
    assert with_silent.cohens_d == without.cohens_d


@pytest.mark.parametrize(("n", "reason"), [(0, "no_signal"), (1, "too_few_right")])
def test_without_enough_signals_nothing_stops(n: int, reason: str) -> None:
    silent = [trace(step(correct=True, tokens=3), step(0.1), id=str(number)) for number in range(4)]
    subject = bench([*silent, *TRACES[:n]])
    draws, done = subject.drawn(METHODS["mean"](), n=2, draws=3)
    assert (draws.n, draws.refused, draws.reasons) == (0, 1.0, {reason: 3})
    assert done.tokens.tolist() == subject.table.spent[:, -1].tolist()
    assert done.averaged


def test_examples_come_from_the_pool_if_there_is_one() -> None:
    subject = Bench(TRACES[:6], SIGNAL, decide="first", seed=0, pool=population(8, seed=3))
    assert subject.drawn(METHODS["mean"](), n=10, draws=3)[0].n == 8


def probed(scores: Sequence[float], *, id: str = "p") -> Trace:
    """A stream whose scores come from its probes of 1, 2, 3, … tokens."""
    steps = [
        replace(
            step(uncertainty=score, tokens=10),
            prompt_tokens=5,
            probe=Probe(answer="1", correct=True, tokens=number, prompt_tokens=100),
        )
        for number, score in enumerate(scores, 1)
    ]
    return trace(*steps, id=id, shape="streaming", signal=Signal(kind="probe-entropy", top_k=None))


@pytest.mark.parametrize(("decide", "tokens", "looks"), [("every", [33 + 1 + 2, 11], 2), ("first", [44 + 1, 11], 1)])
def test_a_gate_pays_for_the_probes_that_it_reads(decide: Decide, tokens: list[float], looks: int) -> None:
    traces = [probed((0.9, 0.9, 0.1, 0.1)), probed((0.1, 0.9), id="q")]
    prices = {"model": Price(1.0, 0.0)}
    subject = Bench(traces, traces[0].signal, decide=decide, seed=0, prices=prices)
    done = subject.gate(replace(subject.settings, threshold=0.5))
    gate = EntropyGate("gate", replace(subject.settings, threshold=0.5))
    assert done.tokens.tolist() == tokens == [gate.replay(one).tokens for one in traces]
    # Prompts of 5 tokens for each step, and of 100 for each probe.
    assert done.cost is not None
    steps = 3 if decide == "every" else 4
    assert done.cost.tolist() == pytest.approx([(5 * steps + 100 * (looks + 1)) / 1e6, 105 / 1e6])
    never = subject.gate(subject.settings)
    assert never.tokens.tolist() == [44, 22]
