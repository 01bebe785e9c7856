"""Money and time: what steps cost by the prices of the models that took them, prompts that are read again included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.files import load_json, read_as
from justenough.trace.columns import UNKNOWN, Columns

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
_LARGEST = 1.7976931348623157e308
_HINT = 'a JSON object {"MODEL": {"input": 0.15, "output": 0.60}, …}, per million tokens'


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model's tokens cost, in any currency."""

    input: Annotated[float, msgspec.Meta(ge=0, le=_LARGEST)]
    """Price of a million prompt tokens."""
    output: Annotated[float, msgspec.Meta(ge=0, le=_LARGEST)]
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
    prices = read_as(load_json(path, hint=_HINT), dict[str, Price], where=str(path), hint=_HINT)
    if not prices:
        raise InputError(f"{path} has no prices", hint=_HINT)
    return prices


def costs_of(columns: Columns, prices: Mapping[str, Price]) -> Costs:
    """The costs of columns; raises `InputError` for a model without a price, or prompts that were not counted."""
    for model in columns.model_names:
        if model not in prices:
            raise InputError(f"there is no price for {model}", hint=f"there are prices for {', '.join(prices)}")
    priced = np.array([(prices[model].input, prices[model].output) for model in columns.model_names])
    reading, writing = priced[columns.step_models].T
    probed = columns.probe_tokens >= 0
    streaming = columns.streaming[columns.problem_of]
    step = _cost_of_prompts(columns, _prompts(columns, streaming), reading, "step {}") + columns.tokens * writing / 1e6
    again = np.where(probed, columns.probe_prompt_tokens, 0)
    reread = _cost_of_prompts(columns, again, reading, "the probe after step {}")
    probe = np.where(probed, reread + columns.probe_tokens * writing / 1e6, 0.0)
    # A streaming run elicits its answer only where it stops.
    earlier = step + np.where(streaming, 0.0, probe)
    return Costs(
        money=columns.before(earlier) + columns.padded(step + probe),
        last=(step + probe)[columns.last()],
        output=writing[columns.first] / 1e6,
        looks=columns.before(np.where(streaming & probed, reread, 0.0)),
    )


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
