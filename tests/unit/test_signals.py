import math
from dataclasses import replace

import pytest

from justenough.errors import InputError, LogprobsError, SignalMismatch
from justenough.gate import GateSettings, decisions
from justenough.signals import MIN_COVERAGE, POOLINGS, Signal, coverage, pool
from tests.builders import step


def test_a_differing_signal_is_refused_by_what_differs() -> None:
    signal = Signal(top_k=20)
    signal.require(Signal(top_k=20), what="the steps")
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
            signal.require(other, what="the steps")
    assert signal.differences(Signal(top_k=5)) == ("top_k 20 is not 5",)


def test_nonsense_is_refused() -> None:
    with pytest.raises(InputError, match="tail"):
        Signal(tail="clip")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="top_k"):
        Signal(top_k=0)
    with pytest.raises(InputError, match="pooling"):
        Signal(pooling="median")
    assert Signal(kind="length", top_k=None, pooling="none of ours").kind == "length"


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean", 50.5),
        ("last-quarter", (76 + 100) / 2),
        ("worst-window", (85 + 100) / 2),
        ("90th-percentile", 90.1),
        ("maximum", 100.0),
        ("sum", 5050.0),
    ],
)
def test_poolings_of_a_ramp(pooling: str, expected: float) -> None:
    ramp = [float(number) for number in range(1, 101)]
    assert pool(ramp, pooling) == pytest.approx(expected)


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_one_token_is_its_own_pool_and_none_has_no_pool(pooling: str) -> None:
    assert pool([0.7], pooling) == pytest.approx(0.7)
    with pytest.raises(LogprobsError):
        pool([], pooling)


def test_the_worst_window_is_found_wherever_it_is() -> None:
    assert pool([0.1] * 30 + [1.0] * 16 + [0.1] * 30, "worst-window") == 1.0


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
