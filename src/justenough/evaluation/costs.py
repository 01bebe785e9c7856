"""Money and time: what steps cost by the prices of the models that took them, prompts that are read again included."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.trace import Trace

Floats = NDArray[np.float64]
_HINT = 'a JSON object {"MODEL": {"input": 0.15, "output": 0.60}, …}, per million tokens'


class Price(NamedTuple):
    """What a model's tokens cost, in any currency."""

    input: float
    """Price of a million prompt tokens."""
    output: float
    """Price of a million completion tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Of n problems of up to K steps; cumulative, so that column k is a run that stops after step k+1."""

    money: Floats
    """(n, K)"""
    last: Floats
    """(n,): the last step alone."""
    output: Floats
    """(n,): of one completion token of step 1's model, for probes that a rule takes besides."""
    looks: Floats
    """(n, K): of reading everything again for the probes before the step; a rule that takes them pays this besides."""


def load_prices(path: Path | str) -> dict[str, Price]:
    """Read a price file; raises `InputError` if it is not one."""
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", hint=_HINT) from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}", hint=_HINT) from error
    if not isinstance(value, dict) or not value:
        raise InputError(f"{path} holds no prices", hint=_HINT)
    prices: dict[str, Price] = {}
    for model, row in value.items():
        if not isinstance(row, dict) or set(row) != {"input", "output"}:
            raise InputError(f"{path}: {model!r} is {row!r}", hint=_HINT)
        for kind, amount in row.items():
            if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < math.inf:
                raise InputError(f"{path}: {model!r} {kind} is {amount!r}", hint="a finite number, at least 0")
        prices[model] = Price(float(row["input"]), float(row["output"]))
    return prices


def costs_of(traces: Sequence[Trace], prices: Mapping[str, Price], *, steps: int) -> Costs:
    """The costs of traces; raises `InputError` for a model without a price, or prompts that were not counted."""
    money, last = np.zeros((len(traces), steps)), np.zeros(len(traces))
    output, looks = np.zeros(len(traces)), np.zeros((len(traces), steps))
    for row, trace in enumerate(traces):
        total = looked = 0.0
        for column in range(steps):
            number = min(column, len(trace.steps) - 1)
            step = trace.steps[number]
            price = _price(prices, step.model or trace.model)
            looks[row, column] = looked
            if column == number:
                read = _read(_prompt(trace, number), price, f"{trace.id}: step {number + 1}")
                cost = read + step.tokens * price.output / 1e6
                probe = 0.0
                if step.probe is not None:
                    again = _read(step.probe.prompt_tokens, price, f"{trace.id}: the probe after step {number + 1}")
                    probe = again + step.probe.tokens * price.output / 1e6
                    looked += again if trace.shape == "streaming" else 0.0
                # A streaming run elicits its answer only where it stops.
                money[row, column] = total + cost + probe
                total += cost + (probe if trace.shape == "sequential" else 0.0)
                last[row] = cost + probe
            else:
                money[row, column] = money[row, column - 1]
        output[row] = _price(prices, trace.steps[0].model or trace.model).output / 1e6
    return Costs(money=money, last=last, output=output, looks=looks)


def _prompt(trace: Trace, number: int) -> int | None:
    """Prompt tokens that a step (0-based) read."""
    step = trace.steps[number]
    if trace.shape == "sequential" or step.prompt_tokens is not None:
        return step.prompt_tokens
    if number:
        # One request writes all segments.
        return 0
    # A stream that is cut does not tell its prompt; its first elicitation read that, the segment and the closing words:
    # a few tokens too many, and as many for every rule.
    again = step.probe.prompt_tokens if step.probe is not None else None
    return None if again is None else max(0, again - step.tokens)


def _read(tokens: int | None, price: Price, what: str) -> float:
    """The cost of a prompt."""
    if tokens is None and price.input > 0:
        raise InputError(
            f"{what} does not say how many prompt tokens it read", hint="give an input price of 0 to leave prompts out"
        )
    return (tokens or 0) * price.input / 1e6


def _price(prices: Mapping[str, Price], model: str) -> Price:
    if model not in prices:
        raise InputError(f"there is no price for {model}", hint=f"prices are known for {', '.join(prices)}")
    return prices[model]
