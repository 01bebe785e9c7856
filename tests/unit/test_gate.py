import math
from dataclasses import replace

import pytest

from justenough.errors import InputError, LogprobsError, SignalMismatch
from justenough.gate import EXPLANATIONS, Action, Decide, Gate, GateSettings, Reason, decisions, replay
from justenough.signal.signal import Signal
from justenough.trace import Step, Token
from tests.builders import SIGNAL, step, trace

SURE, UNSURE = step(0.1, 0.1), step(0.9, 0.9)
BLIND = step(tokens=2)
PATCHY = step(0.1, tokens=2)


def told(settings: GateSettings, *steps: Step) -> list[tuple[Action, Reason]]:
    return [(made.action, made.reason) for made in decisions(steps, settings)]


EXTEND, STOP, FINISH = Action.EXTEND, Action.STOP, Action.FINISH
FIRST = GateSettings(threshold=0.5)
EVERY = GateSettings(threshold=0.5, decide="every")


@pytest.mark.parametrize(
    ("settings", "steps", "expected"),
    [
        (FIRST, [SURE, SURE], [(STOP, Reason.CONFIDENT)]),
        (
            FIRST,
            [UNSURE, SURE, SURE, SURE],
            [(EXTEND, Reason.UNCERTAIN), *[(EXTEND, Reason.NOT_DECISIVE)] * 2, (FINISH, Reason.MAX_STEPS)],
        ),
        (EVERY, [UNSURE, SURE], [(EXTEND, Reason.UNCERTAIN), (STOP, Reason.CONFIDENT)]),
        (EVERY, [UNSURE] * 3 + [SURE], [(EXTEND, Reason.UNCERTAIN)] * 3 + [(STOP, Reason.CONFIDENT)]),
        (EVERY, [UNSURE] * 5, [(EXTEND, Reason.UNCERTAIN)] * 3 + [(FINISH, Reason.MAX_STEPS)]),
        (
            replace(EVERY, patience=2),
            [SURE, UNSURE, SURE, SURE],
            [
                (EXTEND, Reason.PATIENCE),
                (EXTEND, Reason.UNCERTAIN),
                (EXTEND, Reason.PATIENCE),
                (STOP, Reason.CONFIDENT),
            ],
        ),
        (
            replace(EVERY, patience=2),
            [SURE, BLIND, SURE],
            [(EXTEND, Reason.PATIENCE), (EXTEND, Reason.NO_SIGNAL), (EXTEND, Reason.PATIENCE)],
        ),
        (
            replace(EVERY, patience=2),
            [SURE, PATCHY, SURE],
            [(EXTEND, Reason.PATIENCE), (EXTEND, Reason.LOW_COVERAGE), (EXTEND, Reason.PATIENCE)],
        ),
        (replace(EVERY, min_tokens=5), [SURE] * 3, [(EXTEND, Reason.TOO_FEW_TOKENS)] * 2 + [(STOP, Reason.CONFIDENT)]),
        (replace(FIRST, min_tokens=3), [SURE] * 2, [(EXTEND, Reason.TOO_FEW_TOKENS), (EXTEND, Reason.NOT_DECISIVE)]),
        (replace(FIRST, max_steps=1), [UNSURE], [(FINISH, Reason.MAX_STEPS)]),
        (replace(FIRST, max_steps=1), [SURE], [(STOP, Reason.CONFIDENT)]),
        (EVERY, [BLIND, PATCHY], [(EXTEND, Reason.NO_SIGNAL), (EXTEND, Reason.LOW_COVERAGE)]),
        (GateSettings(max_steps=2), [SURE, SURE], [(EXTEND, Reason.NO_THRESHOLD), (FINISH, Reason.MAX_STEPS)]),
        (FIRST, [step(0.5)], [(STOP, Reason.CONFIDENT)]),
        (FIRST, [step(math.nextafter(0.5, 1))], [(EXTEND, Reason.UNCERTAIN)]),
    ],
)
def test_decisions(settings: GateSettings, steps: list[Step], expected: list[tuple[Action, Reason]]) -> None:
    assert told(settings, *steps) == expected


def test_every_reason_is_explained() -> None:
    assert set(EXPLANATIONS) == set(Reason)


def test_a_decision_carries_its_evidence() -> None:
    made = decisions([step(0.1, 0.3, tokens=2)], FIRST)[0]
    assert (made.step, made.tokens, made.coverage, made.threshold, made.ends) == (1, 2, 1.0, 0.5, True)
    assert made.entropy == pytest.approx(0.2)
    assert made.margin == pytest.approx(0.3)
    assert made.explanation == "the entropy is at or below the threshold"
    assert replace(made, score=0.1).explanation == "the decider score is at or below the threshold"
    assert decisions([BLIND], FIRST)[0].margin is None


@pytest.mark.parametrize("decide", ["first", "every"])
@pytest.mark.parametrize("threshold", [0.0, 1e9])
def test_missing_logprobs_never_stop(decide: Decide, threshold: float) -> None:
    gate = Gate(GateSettings(threshold=threshold, decide=decide, max_steps=50))
    for _ in range(49):
        gate.feed(Token(text="x"))
        assert gate.meter.running_entropy is None
        assert not gate.end_step(tokens=7).ends
    nothing = Gate(GateSettings(threshold=threshold, decide=decide))
    assert nothing.end_step().action is EXTEND
    assert not any(made.action is STOP for made in decisions([BLIND, PATCHY] * 2, replace(EVERY, threshold=threshold)))


def test_tokens_that_were_generated_but_not_fed_lower_the_coverage() -> None:
    for true_number, reason in ((20, Reason.CONFIDENT), (21, Reason.LOW_COVERAGE)):
        gate = Gate(FIRST)
        for _ in range(19):
            gate.feed(Token(text="x", entropy=0.1))
        made = gate.end_step(tokens=true_number)
        assert (made.reason, made.tokens) == (reason, true_number)


def test_a_streaming_gate_ends_steps_by_itself() -> None:
    settings = GateSettings(
        threshold=0.5, decide="every", shape="streaming", signal=replace(SIGNAL, splitter="paragraph")
    )
    gate = Gate(settings)
    fed = [("Hm", 0.9), ("\n\n", 0.9), ("So", 0.1), ("\n", 0.1), ("\n", 0.1)]
    actions = [gate.feed(Token(text=text, entropy=bits)).action for text, bits in fed]
    assert actions == [Action.CONTINUE, EXTEND, Action.CONTINUE, Action.CONTINUE, STOP]
    assert (gate.steps, gate.tokens) == (2, 5)


def test_a_gate_that_has_ended_takes_no_more() -> None:
    gate = Gate(FIRST)
    gate.feed(Token(text="x", entropy=0.1))
    assert gate.meter.running_entropy == 0.1
    assert gate.end_step().ends
    with pytest.raises(InputError, match="already ended"):
        gate.feed(Token(text="x"))
    with pytest.raises(InputError, match="already ended"):
        gate.end_step()
    with pytest.raises(InputError, match="already ended"):
        gate.observe(SURE)


def test_bits_of_another_kind_never_stop_and_are_refused_where_known() -> None:
    stand_in = GateSettings(threshold=5.0, signal=Signal(kind="surprisal", top_k=None, pooling="own"))
    gate = Gate(stand_in)
    gate.feed(Token(text="x", entropy=0.1))
    assert gate.end_step().reason is Reason.NO_SIGNAL
    assert told(stand_in, step(uncertainty=4.0)) == [(STOP, Reason.CONFIDENT)]
    with pytest.raises(SignalMismatch):
        replay(trace(SURE), replace(FIRST, signal=replace(SIGNAL, top_k=5)))
    with pytest.raises(LogprobsError):
        Gate(FIRST).feed(Token(text="x", top_logprobs=(-0.1, -3.0)))


def test_replay_ends_with_extend_where_the_trace_is_shorter_than_the_gate() -> None:
    made = replay(trace(UNSURE, UNSURE), replace(FIRST, signal=SIGNAL))
    assert [one.action for one in made] == [EXTEND, EXTEND]


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": math.nan},
        {"threshold": math.inf},
        {"decide": "last"},
        {"shape": "round"},
        {"max_steps": 0},
        {"patience": 0},
        {"min_tokens": -1},
        {"patience": 2},
    ],
)
def test_settings_that_make_no_gate_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InputError):
        replace(FIRST, **change)  # type: ignore[arg-type]


def test_an_unknown_splitter_is_refused_before_the_first_token() -> None:
    with pytest.raises(InputError, match="splitter"):
        Gate(GateSettings(shape="streaming", signal=replace(SIGNAL, splitter="lines")))
