import math
import random
import re
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from justenough.errors import LogprobsError
from justenough.gate import Decide, Decision, Gate, GateSettings, decisions
from justenough.signal.combination import Combination
from justenough.signal.entropy import Tail, sequence_entropy
from justenough.signal.pooling import POOLINGS, Measured
from justenough.signal.signal import Signal
from justenough.signal.steps import splitter
from justenough.trace import Shape, Step, Token

texts = st.sampled_from(["a", " b", "\n", "\n\n", ". ", "!", " ", "c\n", "</think>", "Answer: "])
entropies = st.none() | st.floats(0, 3)
rows = st.lists(st.floats(-20, 0), min_size=3, max_size=9).map(tuple)
scored = st.builds(lambda text, bits: Token(text=text, entropy=bits), texts, entropies)
whole = st.builds(lambda text, bits: Token(text=text, entropy=bits, logprob=-bits / 2), texts, st.floats(0, 3))
combinations = st.builds(
    lambda inputs, weights: Combination(
        inputs=inputs,
        centre=(0.5,) * len(inputs),
        scale=(2.0,) * len(inputs),
        weights=tuple(weights[: len(inputs)]),
        intercept=-0.5,
        n=100,
    ),
    st.lists(st.sampled_from([*POOLINGS, "length"]), min_size=1, max_size=4, unique=True).map(tuple),
    st.lists(st.floats(-3, 3), min_size=4, max_size=4),
)
rich = st.builds(
    lambda text, row, own: Token(text=text, top_logprobs=row, logprob=own), texts, rows, st.none() | st.floats(-20, 0)
)
runs = st.one_of(*(st.lists(st.lists(kind, max_size=40), min_size=1, max_size=6) for kind in (scored, whole, rich)))
signals = st.builds(
    Signal,
    top_k=st.sampled_from([1, 3, None]),
    tail=st.sampled_from(["renormalise", "bucket"]),
    pooling=st.sampled_from(sorted(POOLINGS)),
    splitter=st.sampled_from(["completion", "paragraph", "sentence", "tokens:3"]),
)
signals = signals | st.builds(
    lambda one, fitted: replace(one, pooling="combination", combination=fitted), signals, combinations
)


@st.composite
def gates(draw: st.DrawFn, shape: Shape) -> GateSettings:
    decide: Decide = draw(st.sampled_from(["first", "every"]))
    return GateSettings(
        threshold=draw(st.none() | st.floats(0, 4)),
        signal=draw(signals),
        shape=shape,
        decide=decide,
        max_steps=draw(st.integers(1, 6)),
        min_tokens=draw(st.integers(0, 30)),
        patience=draw(st.integers(1, 3)) if decide == "every" else 1,
    )


def recorded(tokens: list[Token]) -> Step:
    """The step that these tokens make."""
    texts = tuple(token.text for token in tokens)
    rows = tuple(token.top_logprobs for token in tokens if token.top_logprobs is not None)
    bits = tuple(token.entropy for token in tokens if token.entropy is not None)
    logprobs = tuple(token.logprob for token in tokens if token.logprob is not None)
    return Step(
        text="".join(texts),
        tokens=len(tokens),
        top_logprobs=rows or None,
        entropies=None if rows else bits,
        answer=None,
        logprobs=logprobs if len(logprobs) == len(rows or bits) else None,
        token_texts=texts if len(texts) == len(rows or bits) else None,
    )


@given(runs, gates("sequential"))
def test_fed_token_by_token_or_observed_whole_a_sequential_run_decides_alike(
    run: list[list[Token]], settings: GateSettings
) -> None:
    gate = Gate(settings)
    made: list[Decision] = []
    for tokens in run:
        for token in tokens:
            assert gate.feed(token).action == "continue"
        made.append(gate.end_step())
        if made[-1].ends:
            break
    assert tuple(made) == decisions([recorded(tokens) for tokens in run], settings)


# The server added the sampled token to one row only: the wider rows must not change the sums of the others.
RAGGED = [
    Token(text="a", top_logprobs=(0.0, 0.0, 0.0)),
    Token(text="a", top_logprobs=(-1.5, -1.0, -17.0)),
    Token(text="a", top_logprobs=(0.0, 0.0, 0.0, 0.0)),
]


@example([RAGGED], GateSettings(signal=Signal(top_k=3), shape="streaming", max_steps=1))
@given(runs, gates("streaming"))
def test_fed_token_by_token_or_observed_whole_a_streaming_run_decides_alike(
    run: list[list[Token]], settings: GateSettings
) -> None:
    tokens = [token for part in run for token in part]
    segments: list[list[Token]] = [[]]
    watching = splitter(settings.signal.splitter)
    for token in tokens:
        segments[-1].append(token)
        if watching.feed(token.text):
            segments.append([])
    gate = Gate(settings)
    made: list[Decision] = []
    for token in tokens:
        decision = gate.feed(token)
        if decision.action != "continue":
            made.append(decision)
        if decision.ends:
            break
    else:
        if segments[-1]:
            made.append(gate.end_step())
    steps = [recorded(segment) for segment in segments if segment]
    assert tuple(made) == decisions(steps, settings)


@given(runs, gates("sequential"))
def test_a_lower_threshold_never_stops_earlier(run: list[list[Token]], settings: GateSettings) -> None:
    steps = [recorded(tokens) for tokens in run]
    if settings.threshold is None:
        return
    lower = replace(settings, threshold=settings.threshold / 2)
    assert len(decisions(steps, lower)) >= len(decisions(steps, settings))


def any_token(chance: random.Random) -> Token:
    """With the log-probabilities that servers send: of several widths, certain, missing, or none at all."""
    width = chance.choice([1, 3, 4, 4, 4, 4, 4, 5, 20, 21])
    row = [-chance.expovariate(chance.choice([0.01, 0.5, 5.0])) for _ in range(width)]
    kind = chance.random()
    if kind < 0.05:
        return Token(text="a", entropy=chance.choice([None, 0.0, 1.5]))
    if kind < 0.2:
        row[chance.randrange(width)] = chance.choice([-math.inf, -2e4, 0.0, 1e-4, math.nan, 0.5, math.inf])
    if kind < 0.22:
        row = [chance.choice([-math.inf, -800.0, -3e4]) for _ in row]
    return Token(text=chance.choice(["a", " b", ".", "\n\n"]), top_logprobs=tuple(row))


@examples(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 300), signals, st.sampled_from(["renormalise", "bucket", "full"]))
def test_tokens_measured_together_have_the_bits_of_each_by_itself(
    seed: int, count: int, signal: Signal, tail: Tail
) -> None:
    """Also where some are refused in between, and whoever looks at the mean on the way changes nothing."""
    chance = random.Random(seed)
    signal = replace(signal, tail=tail)
    gate = Gate(GateSettings(signal=signal, shape="streaming", max_steps=10**9))
    bits: list[float] = []
    for _ in range(count):
        token = any_token(chance)
        try:
            alone = token.bits(signal)
        except LogprobsError as error:
            with pytest.raises(LogprobsError, match=re.escape(str(error))):
                gate.meter.hear(token)
            continue
        ends = gate.meter.hear(token)
        if alone is not None:
            bits.append(alone)
        if chance.random() < 0.02:
            assert gate.meter.running_entropy == (sequence_entropy(bits) if bits else None)
        if ends:
            assert gate.end_step().entropy == signal.of(Measured(bits))
            bits.clear()
    assert gate.end_step().entropy == signal.of(Measured(bits))
