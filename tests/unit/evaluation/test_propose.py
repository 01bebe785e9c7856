"""A proposed gate: certified if it can be, tested on other problems, with the reason against it."""

from __future__ import annotations

from dataclasses import replace

from justenough.evaluation.propose import propose
from justenough.trace import Step, Trace
from tests.builders import population


def test_a_certificate_comes_first() -> None:
    traces = population(300, seed=2)
    proposal = propose(traces, traces, labels="graded", max_harm=0.05)
    assert proposal.calibration is not None
    assert proposal.evaluation is not None
    assert (proposal.calibration.method, proposal.calibration.decide, proposal.calibration.n) == ("risk", "every", 150)
    assert (proposal.evaluation.problems, proposal.evaluation.left_out) == (150, 150)
    assert proposal.objection is None


def test_with_few_problems_the_mean_decides_on_the_first_step() -> None:
    traces = population(40, seed=2)
    proposal = propose(traces, traces, labels="graded", max_harm=0.05)
    assert proposal.calibration is not None
    assert (proposal.calibration.method, proposal.calibration.decide) == ("mean", "first")


def test_without_a_certificate_the_interval_of_the_change_decides() -> None:
    traces = population(40, seed=2)
    # On the test, no answer changes; then, a stop gains most of the answers.
    same, better = ([replace(trace, steps=_graded(trace, last=last)) for trace in traces] for last in (True, False))
    open_, settled = (propose(traces, graded, labels="graded", max_harm=0.05) for graded in (same, better))
    assert open_.calibration is not None
    assert open_.calibration.guarantee is None
    assert open_.undecided
    assert "on 20 other problems a loss of more than 5 points is still possible" in (open_.objection or "")
    assert "about 106 further problems (--limit 146)" in (open_.objection or "")
    assert settled.calibration == open_.calibration
    assert (settled.objection, settled.undecided) == (None, False)


def _graded(trace: Trace, *, last: bool) -> tuple[Step, Step]:
    return replace(trace.steps[0], correct=True), replace(trace.steps[1], correct=last)


def test_a_signal_that_does_not_separate_gives_no_gate() -> None:
    traces = population(400, seed=1, right=0.5, wrong=0.5)
    proposal = propose(traces, traces, labels="graded", max_harm=0.01)
    assert proposal.calibration is None
    assert proposal.evaluation is None
    assert not proposal.undecided
    assert proposal.objection is not None
    assert proposal.objection.startswith("there is no threshold to trust: gating is not advisable")


def test_a_gate_that_saves_nothing_or_costs_accuracy_is_not_worth_it() -> None:
    traces = population(300, seed=2)
    one = [replace(trace, steps=trace.steps[:1]) for trace in traces]
    assert "it is for one step" in (propose(one, one, labels="graded", max_harm=0.05).objection or "")
    # On the test, every first answer is wrong and every last one right.
    first, last = traces[0].steps
    worse = [
        replace(trace, steps=(replace(trace.steps[0], correct=False), replace(trace.steps[-1], correct=True)))
        for trace in traces
    ]
    assert "changes the accuracy by −" in (propose(traces, worse, labels="graded", max_harm=0.05).objection or "")
    free = [replace(trace, steps=(first, replace(last, tokens=0))) for trace in traces]
    assert "which may be 0" in (propose(traces, free, labels="graded", max_harm=0.05).objection or "")
