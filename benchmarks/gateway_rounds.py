"""The rounds of `benchmarks.gateway`, and the table of their medians and ratios."""

from __future__ import annotations

import statistics
from random import Random
from typing import Final, NamedTuple

_DRAWS: Final = 2000


class Round(NamedTuple):
    """One measurement."""

    tokens_per_s: float
    cpu_us_per_token: float | None
    first_p50_s: float
    """Time to the first token."""
    first_p99_s: float
    delay_p50_s: float
    delay_p99_s: float


Measurements = dict[str, dict[str, list[Round]]]
"""Load → mode → rounds."""


def show(measurements: Measurements) -> None:
    """Print medians over the rounds, and ratios as medians of the ratios within each round, with 95 % intervals."""
    for load_name, modes in measurements.items():
        heads = ("first ms", "later ms", "first, added", "later, added")
        print(f"\n{load_name:28}{'CPU':>8}{'':>10}" + "".join([f"{head:>18}" for head in heads]))
        print(f"{'':28}{'µs/tok.':>8}{'tokens/s':>10}" + f"{'p50':>9}{'p99':>9}" * len(heads))
        for mode, rounds in modes.items():
            direct = modes[direct_of(mode)]
            times = [_median([getattr(one, name) for one in rounds]) * 1e3 for name in Round._fields[2:]]
            for name in Round._fields[2:]:
                added = [getattr(mine, name) - getattr(their, name) for mine, their in zip(rounds, direct, strict=True)]
                times.append(_median(added) * 1e3)
            spent = [one.cpu_us_per_token for one in rounds if one.cpu_us_per_token is not None]
            cost = f"{_median(spent):8.1f}" if spent else f"{'–':>8}"
            speed = _median([one.tokens_per_s for one in rounds])
            print(f"{mode:28}{cost}{speed:10,.0f}" + "".join(f"{value:9.2f}" for value in times))
        for mine, theirs, why in RATIOS:
            if mine in modes and theirs in modes:
                costs = [
                    (one.cpu_us_per_token or 0) / max(other.cpu_us_per_token or 0, 1e-9)
                    for one, other in zip(modes[mine], modes[theirs], strict=True)
                ]
                speeds = [
                    one.tokens_per_s / other.tokens_per_s for one, other in zip(modes[mine], modes[theirs], strict=True)
                ]
                low, high = _interval(costs)
                cost = f"CPU {_median(costs):.2f} [{low:.2f}, {high:.2f}]"
                print(f"  {mine} / {theirs}: {cost}, tokens/s {_median(speeds):.2f}  ({why})")


def direct_of(mode: str) -> str:
    """The way without a process between, for the same upstream and request."""
    kind = next((kind for kind in ("vllm", "logprobs") if kind in mode), None)
    return "direct" if kind is None else f"direct, {kind}"


_GATES: Final = ("gate", "gate, logprobs", "gate, vllm", "gate, vllm, logprobs")
RATIOS: Final = (
    ("gate", "bare, logprobs", "same bytes from the upstream"),
    ("gate, logprobs", "bare, logprobs", "same bytes in and out"),
    ("gate", "bare", "the gate makes the upstream send log-probabilities as well"),
    ("gate, vllm", "bare, vllm", "same bytes from the upstream"),
    ("gate, vllm, logprobs", "bare, vllm", "same bytes from the upstream"),
    *((mode, mode.replace("gate", "before"), "the other tree") for mode in _GATES),
    ("off", "bare", "same bytes"),
    ("gate", "litellm", "litellm gets no log-probabilities"),
)


def _median(values: list[float]) -> float:
    return statistics.median(values)


def _interval(values: list[float]) -> tuple[float, float]:
    """95 % of the medians of rounds that are drawn again with replacement."""
    rng = Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(_DRAWS))
    return medians[_DRAWS // 40], medians[-_DRAWS // 40]
