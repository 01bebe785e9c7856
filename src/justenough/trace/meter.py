"""Measures one step after the other from its tokens: their bits, and where a step ends. It decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.errors import LogprobsError
from justenough.signal.entropy import RunningEntropy, is_measurable, require_entropy, token_entropy
from justenough.signal.pooling import Measured
from justenough.signal.signal import Signal, coverage
from justenough.signal.steps import splitter
from justenough.trace.types import Shape, Token

BLOCK: Final = 64
"""Number of tokens that are measured together: large enough for NumPy to be fast, small enough to keep in memory."""


class Measurement(NamedTuple):
    """The measured values of a finished step."""

    bits: float | None
    """The step's signal; None if there was nothing to measure."""
    tokens: int
    """Tokens that were generated for the step."""
    coverage: float
    """Share of the tokens that came with log-probabilities; 0 if there were no tokens."""


class StepMeter:
    """Collects the tokens of the current step and measures them when the step ends.

    `Gate.feed` is the simple way. The meter is for drivers that see thousands of tokens per second: they can learn
    where a step ends from the text alone, and add the log-probabilities later, many at a time.
    """

    def __init__(self, signal: Signal, *, shape: Shape = "sequential") -> None:
        self.signal = signal
        self.tokens = 0
        """Tokens of the current step so far."""
        self._splits = shape == "streaming"
        # The tail treatment `full` can find missing mass and must name the token, so it measures each token at once.
        self._delays = signal.kind == "entropy" and signal.tail != "full"
        self._narrowest = signal.top_k or 1
        self._keeps_texts = signal.needs not in ((), ("entropies",))
        self._begin()

    def _begin(self) -> None:
        self._entropies: list[float] = []
        self._logprobs: list[float] = []
        self._texts: list[str] = []
        self._running = RunningEntropy()
        """Holds only the first entropies; `running_entropy` adds the others."""
        self._rows: list[Sequence[float]] = []
        """Log-probabilities that are not measured yet. All rows have the same width."""
        self.tokens = 0
        self._discarded = 0
        self._splitter = splitter(self.signal.splitter) if self._splits else None

    @property
    def running_entropy(self) -> float | None:
        """Mean bits of the current step so far; None before the first token with log-probabilities."""
        self._measure_rows()
        for bits in self._entropies[self._running.count :]:
            self._running.add(bits)
        return self._running.mean if self._running.count else None

    def hear(self, token: Token) -> bool:
        """Add a token; returns whether the step ends with it.

        Raises `LogprobsError` if the signal cannot be measured on its log-probabilities. The token is then not added.
        """
        self.measure(token)
        return self.splits(token.text)

    def splits(self, text: str) -> bool:
        """Whether a step ends with this token. Needs only the text; call `measure` before the step is ended."""
        return self._splitter is not None and self._splitter.feed(text)

    def measure(self, token: Token) -> None:
        """Add the log-probabilities of a token whose text `splits` has already seen, or will see."""
        row = token.top_logprobs
        if row is not None and self._delays and len(row) >= self._narrowest and is_measurable(row):
            if self._rows and len(self._rows[0]) != len(row):
                self._measure_rows()
            self._rows.append(row)
            if len(self._rows) == BLOCK:
                self._measure_rows()
            measured = True
        elif measured := (bits := token.bits(self.signal)) is not None:
            self._measure_rows()
            require_entropy(len(self._entropies), bits)
            self._entropies.append(bits)
        if self._keeps_texts:
            self._texts.append(token.text)
            if measured and token.logprob is not None:
                self._logprobs.append(token.logprob)
        self.tokens += 1 + token.discarded
        self._discarded += token.discarded

    def measure_block(self, logprobs: NDArray[np.float64]) -> bool:
        """Add many tokens at once: natural log-probabilities of shape (T, k), each row in descending order.

        Returns False, and adds nothing, if these tokens must be measured one by one.
        """
        if not self._delays or self._keeps_texts or logprobs.shape[1] < self._narrowest:
            return False
        try:
            bits = token_entropy(logprobs, tail=self.signal.tail, top_k=self.signal.top_k)
        except LogprobsError:
            return False
        self._measure_rows()
        self._entropies += bits.tolist()
        self.tokens += len(bits)
        return True

    def _measure_rows(self) -> None:
        """Measure the rows that wait, in their order."""
        if self._rows:
            self._entropies += token_entropy(self._rows, tail=self.signal.tail, top_k=self.signal.top_k).tolist()
            self._rows = []

    def end(self, *, tokens: int | None = None) -> Measurement:
        """End the step and start the next one; `tokens` is the true number if more were generated than added."""
        self._measure_rows()
        generated = max(self.tokens, tokens or 0)
        # If the lists differ in length, `Measured` notices it and does not use the shorter one.
        bits = self.signal.of(Measured(self._entropies, self._logprobs, self._texts))
        # Discarded look-ahead tokens count as generated, but they have no log-probabilities.
        covered = coverage(len(self._entropies), generated - self._discarded)
        self._begin()
        return Measurement(bits, generated, covered)
