"""Each rule's stop and its tokens, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from justenough.errors import InputError
from justenough.gate import GateSettings
from justenough.rules.rules import EntropyGate, open_rule
from justenough.signal.signal import Signal
from justenough.trace import Probe, Step
from tests.builders import step, trace

SEQUENTIAL = trace(
    step(0.5, tokens=10, answer="3", correct=False),
    step(0.5, tokens=20, answer="4"),
    step(0.5, tokens=30, answer="4"),
    step(0.5, tokens=40, answer="5", correct=False),
)


def probed(tokens: int, answer: str, *, correct: bool, probe: int) -> Step:
    made = Probe(answer=answer, correct=correct, tokens=probe)
    return replace(step(0.5, tokens=tokens, answer=answer, correct=correct), probe=made)


STREAMING = trace(
    probed(10, "3", correct=False, probe=2),
    probed(20, "4", correct=True, probe=3),
    probed(30, "4", correct=True, probe=4),
    probed(40, "4", correct=True, probe=5),
    shape="streaming",
)


@pytest.mark.parametrize(
    ("name", "step", "tokens"),
    [
        ("always-one-step", 1, 10),
        ("always-3-steps", 3, 60),
        ("always-9-steps", 4, 100),
        ("all-steps", 4, 100),
        ("oracle", 1, 10),
        ("fixed-budget:10", 1, 10),
        ("fixed-budget:11", 2, 30),
        ("fixed-budget:9999", 4, 100),
    ],
)
def test_sequential(name: str, step: int, tokens: int) -> None:
    stopped = open_rule(name).replay(SEQUENTIAL)
    assert (stopped.step, stopped.tokens) == (step, tokens)
    assert stopped.correct is (step in (2, 3))
    assert stopped.early is (step < 4)


@pytest.mark.parametrize(
    ("name", "step", "tokens"),
    [
        ("always-one-step", 1, 12),
        ("all-steps", 4, 105),
        ("fixed-budget:30", 2, 33),
    ],
)
def test_streaming_counts_the_probes(name: str, step: int, tokens: int) -> None:
    stopped = open_rule(name).replay(STREAMING)
    assert (stopped.step, stopped.tokens) == (step, tokens)


def test_the_oracle_stops_where_stopping_costs_nothing() -> None:
    right = replace(SEQUENTIAL, steps=SEQUENTIAL.steps[:3])
    assert open_rule("oracle").replay(right).step == 3
    stopped = open_rule("oracle", decide="every").replay(right)
    assert (stopped.step, stopped.correct) == (2, True)
    # The last answer is wrong, so nothing is lost after step 1.
    assert open_rule("oracle", decide="every").replay(SEQUENTIAL).step == 1
    assert open_rule("oracle", decide="every").replay(replace(SEQUENTIAL, steps=SEQUENTIAL.steps[:1])).step == 1


def test_the_oracle_pays_for_one_probe_and_never_more_than_going_on() -> None:
    stopped = open_rule("oracle", decide="every").replay(STREAMING)
    assert (stopped.step, stopped.tokens) == (2, 30 + 3)
    # The last answer came unasked: it takes fewer tokens than an elicited one before it.
    last = replace(step(0.5, tokens=1, answer="4"), probe=None)
    late = trace(probed(10, "4", correct=True, probe=9), last, shape="streaming")
    assert open_rule("oracle").replay(late) == (2, 11, True, False, False)


def test_a_gate_on_probed_answers_pays_for_every_probe_on_the_way() -> None:
    signal = Signal(kind="probe-entropy", top_k=None)
    scores = (0.9, 0.8, 0.1, 0.1)
    steps = tuple(
        replace(made, entropies=None, uncertainty=score) for made, score in zip(STREAMING.steps, scores, strict=True)
    )
    made = replace(STREAMING, steps=steps, signal=signal)
    gate = GateSettings(threshold=0.5, signal=signal, shape="streaming", decide="every", max_steps=4)
    assert EntropyGate("gate", gate).replay(made)[:2] == (3, 60 + 4 + 2 + 3)
    # A gate that decides after step 1 only has probed there only; one without a threshold probes nowhere.
    assert EntropyGate("gate", replace(gate, decide="first")).replay(made)[:2] == (4, 100 + 5 + 2)
    assert EntropyGate("gate", replace(gate, threshold=None)).replay(made)[:2] == (4, 100 + 5)
    own = replace(signal, kind="segment-score")
    other = EntropyGate("gate", replace(gate, signal=own)).replay(replace(made, signal=own))
    assert other[:2] == (3, 60 + 4)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("magic", "unknown rule 'magic'"),
        ("always--steps", "unknown rule"),
        ("fixed-budget", "no whole number .*for example fixed-budget:500"),
        ("fixed-budget:x", "no whole number"),
        ("fixed-budget:0", "no whole number"),
        ("fixed-budget:²", "no whole number"),
        ("fixed-budget:" + "9" * 5000, "no whole number"),
        ("always-" + "9" * 5000 + "-steps", "no whole number"),
        ("always-0-steps", "no whole number"),
        ("all-steps:3", "all-steps takes none"),
        ("oracle:every", "oracle takes none"),
        ("always-2-steps:3", "always-2-steps takes none"),
        ("calm:0.5", "unknown rule 'calm:0.5'.*--leave softmax"),
        ("eager:2", "--branching eager:2"),
        ("clear", "--policy clear"),
        ("cusum", "cusum:tuned"),
    ],
)
def test_unknown_rules_are_refused(name: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        open_rule(name)
