import math
from dataclasses import replace

import numpy as np
import pytest

from justenough.errors import InputError, SignalMismatch
from justenough.gate import GateSettings, decisions
from justenough.signal.pooling import POOLINGS
from justenough.signal.signal import MIN_COVERAGE, Signal, coverage
from justenough.trace import Step
from tests.builders import SIGNAL, step


def test_a_differing_signal_is_refused_by_what_differs() -> None:
    signal = Signal(top_k=20)
    signal.require(Signal(top_k=20), what="the steps", own="the gate's")
    for other in (
        Signal(top_k=5),
        Signal(tail="bucket"),
        Signal(pooling="sum"),
        Signal(splitter="paragraph"),
        Signal(logits="raw"),
        Signal(temperature=0.6),
        Signal(kind="surprisal", top_k=None),
    ):
        assert signal.differences(other)
        with pytest.raises(SignalMismatch, match="the steps were measured differently"):
            signal.require(other, what="the steps", own="the gate's")
    with pytest.raises(SignalMismatch, match="the steps were measured differently: top_k is 5, the gate's 20"):
        signal.require(Signal(top_k=5), what="the steps", own="the gate's")


def test_nonsense_is_refused() -> None:
    with pytest.raises(InputError, match="tail"):
        Signal(tail="clip")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="top_k"):
        Signal(top_k=0)
    with pytest.raises(InputError, match="pooling"):
        Signal(pooling="median")
    assert Signal(kind="length", top_k=None, pooling="none of ours").kind == "length"


def test_all_signals_of_a_step_are_those_of_each() -> None:
    rows = np.log(np.random.default_rng(0).dirichlet(np.ones(20), size=40))
    whole = Step(answer="1", tokens=40, top_logprobs=tuple(map(tuple, rows.tolist())))
    signals = [replace(SIGNAL, pooling=pooling) for pooling in POOLINGS]
    signals += [replace(SIGNAL, tail="bucket"), replace(SIGNAL, top_k=5), Signal(kind="other", top_k=None)]
    found = whole.values(signals)
    assert found == [whole.bits(signal) for signal in signals]
    assert len(set(found)) > len(POOLINGS)
    assert replace(whole, tokens=50).values(signals) == [None] * len(signals)


@pytest.mark.parametrize(("entries", "tokens", "share"), [(0, 0, 0.0), (0, 5, 0.0), (19, 20, 0.95), (21, 20, 1.0)])
def test_coverage(entries: int, tokens: int, share: float) -> None:
    assert coverage(entries, tokens) == share


@pytest.mark.parametrize(("entries", "stops"), [(95, True), (94, False), (0, False)])
def test_below_95_percent_coverage_nothing_ever_stops(entries: int, stops: bool) -> None:
    seen = replace(step(*[0.0] * entries, tokens=100), entropies=(0.0,) * entries)
    settings = GateSettings(threshold=100.0)
    assert (decisions([seen], settings)[0].action == "stop") is stops
    assert (seen.usable_bits(settings.signal) is not None) is stops
    assert math.isclose(MIN_COVERAGE, 0.95)
