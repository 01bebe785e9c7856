"""Money and time: what steps cost by the prices of the models that took them, prompts that are read again included."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.files import load_json, shown
from justenough.trace.columns import UNKNOWN, Columns

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
_LARGEST: Final = sys.float_info.max
_HINT = 'a JSON object {"MODEL": {"input": 0.15, "output": 0.60}, …}, per million tokens'


class Price(NamedTuple):
    """What a model's tokens cost, in any currency."""

    input: float
    """Price of a million prompt tokens."""
    output: float
    """Price of a million completion tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Costs of n problems of up to K steps; cumulative: column k is a run that stops after step k+1."""

    money: Floats
    """(n, K)"""
    last: Floats
    """(n,): the last step alone."""
    output: Floats
    """(n,): of one completion token of step 1's model, for probes that a rule takes besides."""
    looks: Floats
    """(n, K): of reading everything again for the probes before the step; a rule that probes pays this in addition."""

    def rows(self, index: Ints | Bools) -> Costs:
        """The problems at `index`."""
        return Costs(money=self.money[index], last=self.last[index], output=self.output[index], looks=self.looks[index])


def load_prices(path: Path | str) -> dict[str, Price]:
    """Read a price file; raises `InputError` if it is not one."""
    path = Path(path)
    value = load_json(path, hint=_HINT)
    if not isinstance(value, dict) or not value:
        raise InputError(f"{path} holds no prices", hint=_HINT)
    prices: dict[str, Price] = {}
    for model, row in value.items():
        if not isinstance(row, dict) or set(row) != {"input", "output"}:
            raise InputError(f"{path}: {shown(model)} is {shown(row)}", hint=_HINT)
        for kind, amount in row.items():
            if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount <= _LARGEST:
                raise InputError(
                    f"{path}: {shown(model)} {kind} is {shown(amount)}", hint="a finite number, at least 0"
                )
        prices[model] = Price(float(cast("float", row["input"])), float(cast("float", row["output"])))
    return prices


def costs_of(columns: Columns, prices: Mapping[str, Price]) -> Costs:
    """The costs of columns; raises `InputError` for a model without a price, or prompts that were not counted."""
    reading, writing = _prices(columns, prices)
    probed = columns.probe_tokens >= 0
    streaming = columns.streaming[columns.problem_of]
    read = _cost_of_prompts(columns, _prompts(columns, streaming), reading, "step {}")
    again = _cost_of_prompts(
        columns, np.where(probed, columns.probe_prompt_tokens, 0), reading, "the probe after step {}"
    )
    step = read + columns.tokens * writing / 1e6
    probe = np.where(probed, again + columns.probe_tokens * writing / 1e6, 0.0)
    # A streaming run elicits its answer only where it stops.
    earlier = step + np.where(streaming, 0.0, probe)
    return Costs(
        money=columns.before(earlier) + columns.padded(step + probe),
        last=(step + probe)[columns.last()],
        output=writing[columns.first] / 1e6,
        looks=columns.before(np.where(streaming & probed, again, 0.0)),
    )


def _prices(columns: Columns, prices: Mapping[str, Price]) -> tuple[Floats, Floats]:
    """The price of one prompt token and of one completion token at each checkpoint, each (m,)."""
    for model in columns.model_names:
        if model not in prices:
            raise InputError(f"there is no price for {model}", hint=f"there are prices for {', '.join(prices)}")
    priced = np.array([prices[model] for model in columns.model_names], dtype=np.float64)
    return priced[columns.step_models, 0], priced[columns.step_models, 1]


def _prompts(columns: Columns, streaming: Bools) -> Ints:
    """Prompt tokens that each step read, (m,); -1 where unknown."""
    probe = columns.probe_prompt_tokens
    # A stream that was cut does not report its prompt. Its first elicitation read the prompt, the segment and the
    # closing words: a few tokens too many, but the same for every rule.
    guessed = np.where(probe >= 0, np.maximum(0, probe - columns.tokens), UNKNOWN)
    first = np.zeros(len(probe), dtype=np.bool_)
    first[columns.first] = True
    # One request writes all segments of a stream, so only the first one reads the prompt.
    streamed = np.where(first, guessed, 0)
    return np.where(streaming & (columns.prompt_tokens < 0), streamed, columns.prompt_tokens)


def _cost_of_prompts(columns: Columns, tokens: Ints, price: Floats, what: str) -> Floats:
    """The cost of reading prompts (m,), per million tokens of price."""
    bad = np.flatnonzero((tokens < 0) & (price > 0))
    if len(bad):
        problem = int(columns.problem_of[bad[0]])
        name = what.format(int(bad[0] - columns.offsets[problem]) + 1)
        raise InputError(
            f"{columns.ids[problem]}: {name} does not say how many prompt tokens it read",
            hint="give an input price of 0 to leave prompts out",
        )
    return np.maximum(tokens, 0) * price / 1e6
