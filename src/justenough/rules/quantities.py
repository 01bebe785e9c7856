"""The numbers that rules read at each checkpoint."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from justenough.rules.elicited import LACKING, Answers, candidate_entropy
from justenough.trace import Trace
from justenough.trace.batches import Batch
from justenough.trace.blocks import Floats
from justenough.trace.sums import Sums

_LEAST: Final = -1e4  # smaller natural log-probabilities count as this one


class Quantity(NamedTuple):
    """A number that rules read at each checkpoint."""

    lack: str
    """What the trace must hold, as a message names it."""
    read: Callable[[Trace, Answers], Floats]
    """The values of all steps: NaN where there is no answer to read, `LACKING` where it is not recorded."""
    elicits: bool = True
    """Whether the values are read off the answers that are elicited."""
    logprobs: bool = True
    """Whether the values are computed from log-probabilities."""
    flat: Callable[[Batch, Answers], Floats] | None = None
    """`read` of all steps of a batch of streams; None: its traces are read one by one."""


def of_answers(lack: str, read: Callable[[Answers], Floats], *, logprobs: bool = True) -> Quantity:
    """A quantity of each answer alone."""

    def values(_: Batch | Trace, answers: Answers) -> Floats:
        return np.where(answers.there, read(answers), math.nan)

    return Quantity(lack, values, logprobs=logprobs, flat=values)


ENTROPIES: Final = "the token entropies of every answer"
LOGPROBS: Final = "the token log-probabilities of every answer"
LOGPROB: Final = of_answers(LOGPROBS, lambda all: all.logprobs.known(np.maximum(all.logprobs.means(), _LEAST)))
"""Mean natural log-probability of the answer's tokens."""
MEAN_BITS: Final = of_answers(ENTROPIES, lambda all: all.entropies.means())
"""Mean bits of the answer's tokens."""


_HESITATION: Final = re.compile(r"\b(?:wait|hold|but|okay|no|hmm)\b", re.IGNORECASE)


def _hesitates(answers: Answers) -> Floats:
    values = {text: float(_HESITATION.search(text) is not None) if text else LACKING for text in set(answers.spoken)}
    return np.array([values[text] for text in answers.spoken])


def _trial(answers: Answers) -> Floats:
    logprobs = answers.logprobs
    # The probabilities are those of the standard library, which NumPy's differ from in the last bit.
    chances = Sums(np.array(list(map(math.exp, logprobs.sums.values.tolist()))))
    # If there is no cue, the first token of the trial is the answer's.
    begin = np.minimum(logprobs.begin + (answers.begin == 0), logprobs.end)
    count = logprobs.end - begin
    return logprobs.known(np.where(count > 0, chances.of(begin, logprobs.end) / np.maximum(count, 1), math.nan))


def _first_bits(answers: Answers) -> Floats:
    bits = answers.entropies
    return bits.known(np.append(bits.sums.values, math.nan)[bits.begin])


def _along(answers: Answers) -> Floats:
    return answers.entropies.known(answers.entropies.sums.of(answers.entropies.begin, answers.entropies.end))


def _candidates(trace: Trace, answers: Answers) -> Floats:
    values = np.where(answers.there, _along(answers), math.nan)
    for place in np.flatnonzero(answers.there).tolist() if trace.shape == "streaming" else ():
        if (bits := candidate_entropy(trace.steps[place].probe, int(answers.begin[place]))) is not None:
            values[place] = bits
    return values


HESITATES: Final = of_answers("the text of every answer", _hesitates, logprobs=False)
TRIAL: Final = of_answers(LOGPROBS, _trial)
"""Mean probability of the trial's tokens without its first one."""
FIRST_BITS: Final = of_answers(ENTROPIES, _first_bits)
# In a batch no probe has other keys, so none records candidates.
CANDIDATES: Final = Quantity(ENTROPIES, _candidates, flat=of_answers(ENTROPIES, _along).flat)
"""Bits of the distribution of answers."""
