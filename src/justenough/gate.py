"""The one decision core: stop, or keep reasoning. No I/O; runner, gateway, plugins and replay all drive this class.

`feed` takes tokens as they come, `end_step` ends a step. The safe direction is to go on: a step that came without
log-probabilities, or with too few of them, is never a reason to stop.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError, LogprobsError
from justenough.signal.entropy import RunningEntropy, is_measurable, require_entropy, token_entropy
from justenough.signal.pooling import Measured
from justenough.signal.signal import MIN_COVERAGE, Signal, coverage
from justenough.signal.steps import Splitter, splitter
from justenough.trace import SHAPES, Shape, Step, Token, Trace

Decide = Literal["first", "every"]

DECIDES: Final[tuple[Decide, ...]] = ("first", "every")

BLOCK: Final = 64
"""Tokens whose bits are taken together: enough to make NumPy cheap, few enough to hold."""


class Action(StrEnum):
    """What to do now."""

    CONTINUE = "continue"
    """The step is not over."""
    EXTEND = "extend"
    """Think another step."""
    STOP = "stop"
    """The model knows: answer from what there is."""
    FINISH = "finish"
    """The last step allowed is done."""


class Reason(StrEnum):
    """Why."""

    WITHIN_STEP = "within_step"
    CONFIDENT = "confident"
    UNCERTAIN = "uncertain"
    NOT_DECISIVE = "not_decisive"
    """`decide: first`, and this is a later step."""
    TOO_FEW_TOKENS = "too_few_tokens"
    PATIENCE = "patience"
    """Confident, but not yet in as many steps in a row as asked."""
    NO_THRESHOLD = "no_threshold"
    NO_SIGNAL = "no_signal"
    LOW_COVERAGE = "low_coverage"
    MAX_STEPS = "max_steps"
    BUDGET = "budget"
    """Said by whoever drives the gate: no token is left for another step."""


EXPLANATIONS: Final = {
    Reason.WITHIN_STEP: "the step is not over",
    Reason.CONFIDENT: "the entropy is at or below the threshold",
    Reason.UNCERTAIN: "the entropy is above the threshold",
    Reason.NOT_DECISIVE: "only the first step decides, and it was not confident",
    Reason.TOO_FEW_TOKENS: "confident, but fewer tokens than the minimum",
    Reason.PATIENCE: "confident, but not yet in enough steps in a row",
    Reason.NO_THRESHOLD: "there is no threshold, so nothing is stopped",
    Reason.NO_SIGNAL: "the step came without log-probabilities, so nothing is decided on it",
    Reason.LOW_COVERAGE: "too many tokens came without log-probabilities",
    Reason.MAX_STEPS: "all steps are done",
    Reason.BUDGET: "the token budget is spent",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the gate says, and on which evidence."""

    action: Action
    reason: Reason
    step: int
    """1-based."""
    entropy: float | None = None
    """The step's signal, bits."""
    threshold: float | None = None
    margin: float | None = None
    """`threshold - entropy`, bits: positive where confident."""
    tokens: int = 0
    """Tokens of the step."""
    coverage: float | None = None

    @property
    def ends(self) -> bool:
        """Whether generation is over."""
        return self.action in (Action.STOP, Action.FINISH)

    @property
    def explanation(self) -> str:
        """One sentence for people."""
        return EXPLANATIONS[self.reason]


class Thresholded(Protocol):
    """What a gate needs to know of a calibration."""

    @property
    def threshold(self) -> float | None:
        """Bits; None never stops."""

    @property
    def signal(self) -> Signal:
        """Which bits are measured."""

    @property
    def shape(self) -> Shape:
        """What a step is."""

    @property
    def decide(self) -> Decide:
        """After which steps the gate may stop."""

    @property
    def max_steps(self) -> int:
        """The step at which a run ends in any case."""

    @property
    def min_tokens(self) -> int:
        """Tokens before the first possible stop."""

    @property
    def patience(self) -> int:
        """Confident steps in a row before a stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """When to stop. Without a threshold the gate only counts steps."""

    threshold: float | None = None
    """Bits: stop where the step's signal is at or below."""
    signal: Signal = field(default_factory=Signal)
    shape: Shape = "sequential"
    decide: Decide = "first"
    """`first`: after step 1 or not at all (the paper's); `every`: after each step."""
    max_steps: int = 4
    min_tokens: int = 0
    """No stop before so many tokens were generated in all."""
    patience: int = 1
    """Steps in a row that must be confident; more than 1 needs `every`."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InputError(f"threshold {self.threshold!r} is no number of bits", hint="None never stops")
        if self.shape not in SHAPES:
            raise InputError(f"shape is {self.shape!r}", hint=f"one of {', '.join(SHAPES)}")
        if self.decide not in DECIDES:
            raise InputError(f"decide is {self.decide!r}", hint=f"one of {', '.join(DECIDES)}")
        if self.max_steps < 1 or self.patience < 1 or self.min_tokens < 0:
            raise InputError(
                f"max_steps {self.max_steps}, patience {self.patience}, min_tokens {self.min_tokens}",
                hint="steps and patience are at least 1, tokens at least 0",
            )
        if self.patience > 1 and self.decide == "first":
            raise InputError(
                f"patience {self.patience} waits for later steps, and only the first decides", hint="decide: every"
            )

    @classmethod
    def of(cls, calibration: Thresholded) -> GateSettings:
        """The gate that a calibration describes."""
        return cls(
            threshold=calibration.threshold,
            signal=calibration.signal,
            shape=calibration.shape,
            decide=calibration.decide,
            max_steps=calibration.max_steps,
            min_tokens=calibration.min_tokens,
            patience=calibration.patience,
        )


class Gate:
    """Decides for one problem; make a new one for the next."""

    def __init__(self, settings: GateSettings) -> None:
        self.settings = settings
        self.steps = 0
        self.tokens = 0
        """Tokens of all steps so far."""
        self._confident = 0
        self._splitter: Splitter | None = None
        self._over = False
        signal = settings.signal
        # Measuring the whole vocabulary may find mass missing, and must say so of the token at fault.
        self._later = signal.kind == "entropy" and signal.tail != "full"
        self._narrowest = signal.top_k or 1
        self._keeps = signal.needs not in ((), ("entropies",))
        self._begin()

    def _begin(self) -> None:
        self._entropies: list[float] = []
        self._logprobs: list[float] = []
        self._texts: list[str] = []
        self._running = RunningEntropy()
        """Of the first of them; the rest it takes when it is asked for."""
        self._rows: list[Sequence[float]] = []
        """Log-probabilities not yet measured, all of one width: only then are their bits those of each by itself."""
        self._step_tokens = 0
        self._discarded = 0
        if self.settings.shape == "streaming":
            self._splitter = splitter(self.settings.signal.splitter)

    @property
    def running_entropy(self) -> float | None:
        """Mean bits of the present step so far; None before its first entry."""
        self._measure_waiting()
        for bits in self._entropies[self._running.count :]:
            self._running.add(bits)
        return self._running.mean if self._running.count else None

    def feed(self, token: Token) -> Decision:
        """Take a token. Streaming: where it completes a step, the step is decided; otherwise the answer is CONTINUE.

        Raises `LogprobsError` for log-probabilities that the signal cannot be taken of.
        """
        if self.hear(token):
            return self.end_step()
        return Decision(
            action=Action.CONTINUE,
            reason=Reason.WITHIN_STEP,
            step=self.steps + 1,
            threshold=self.settings.threshold,
            tokens=self._step_tokens,
        )

    def hear(self, token: Token) -> bool:
        """`feed` for those who need no decision but at a step's end: whether the token completes one, to be ended now.

        Raises as `feed` does, and then has not taken the token.
        """
        self.measure(token)
        return self.splits(token.text)

    def splits(self, text: str) -> bool:
        """The half of `hear` that needs no log-probabilities: whether a step ends with a token of this text."""
        return self._splitter is not None and self._splitter.feed(text)

    def measure(self, token: Token) -> None:
        """The other half of `hear`; it may come later, as long as that is before the step is ended."""
        self._check()
        row = token.top_logprobs
        if row is not None and self._later and len(row) >= self._narrowest and is_measurable(row):
            if self._rows and len(self._rows[0]) != len(row):
                self._measure_waiting()
            self._rows.append(row)
            if len(self._rows) == BLOCK:
                self._measure_waiting()
            measured = True
        elif measured := (bits := token.bits(self.settings.signal)) is not None:
            self._measure_waiting()
            require_entropy(len(self._entropies), bits)
            self._entropies.append(bits)
        if self._keeps:
            self._texts.append(token.text)
            if measured and token.logprob is not None:
                self._logprobs.append(token.logprob)
        self._step_tokens += 1 + token.discarded
        self._discarded += token.discarded

    def measure_block(self, logprobs: NDArray[np.float64]) -> bool:
        """`measure` for one token after the other, their log-probabilities (T, k) falling in each row, all at once.

        False, and nothing is taken, where they have to be measured one by one.
        """
        self._check()
        signal = self.settings.signal
        if not self._later or self._keeps or logprobs.shape[1] < self._narrowest:
            return False
        try:
            bits = token_entropy(logprobs, tail=signal.tail, top_k=signal.top_k)
        except LogprobsError:
            return False
        self._measure_waiting()
        self._entropies += bits.tolist()
        self._step_tokens += len(bits)
        return True

    def _measure_waiting(self) -> None:
        """Take the bits of the rows that wait, in their order."""
        if self._rows:
            signal = self.settings.signal
            self._entropies += token_entropy(self._rows, tail=signal.tail, top_k=signal.top_k).tolist()
            self._rows = []

    def end_step(self, *, tokens: int | None = None) -> Decision:
        """End the step and decide; `tokens` is its true number where more were generated than fed."""
        self._check()
        self._measure_waiting()
        generated = max(self._step_tokens, tokens or 0)
        # Lists of another length than the entropies' are told by `Measured` and used for nothing.
        bits = self.settings.signal.of(Measured(self._entropies, self._logprobs, self._texts))
        # Look-ahead that was thrown away is spent, but nobody asked for its log-probabilities.
        covered = coverage(len(self._entropies), generated - self._discarded)
        self._begin()
        return self._decide(bits, tokens=generated, covered=covered)

    def observe(self, step: Step) -> Decision:
        """Decide on a recorded step, exactly as if its tokens had been fed."""
        self._check()
        return self._decide(step.bits(self.settings.signal), tokens=step.tokens, covered=step.coverage())

    def _check(self) -> None:
        if self._over:
            raise InputError("the gate has already ended this problem", hint="make a new Gate for the next problem")

    def _decide(self, bits: float | None, *, tokens: int, covered: float | None) -> Decision:
        settings = self.settings
        self.steps += 1
        self.tokens += tokens
        action, reason = self._verdict(bits, covered)
        if action is not Action.STOP and self.steps >= settings.max_steps:
            action, reason = Action.FINISH, Reason.MAX_STEPS
        self._over = action in (Action.STOP, Action.FINISH)
        threshold = settings.threshold
        return Decision(
            action=action,
            reason=reason,
            step=self.steps,
            entropy=bits,
            threshold=threshold,
            margin=None if bits is None or threshold is None else threshold - bits,
            tokens=tokens,
            coverage=covered,
        )

    def _verdict(self, bits: float | None, covered: float | None) -> tuple[Action, Reason]:
        settings = self.settings
        if settings.threshold is None:
            return Action.EXTEND, Reason.NO_THRESHOLD
        if settings.decide == "first" and self.steps > 1:
            return Action.EXTEND, Reason.NOT_DECISIVE
        if bits is None:
            self._confident = 0
            return Action.EXTEND, Reason.NO_SIGNAL
        if covered is not None and covered < MIN_COVERAGE:
            self._confident = 0
            return Action.EXTEND, Reason.LOW_COVERAGE
        if bits > settings.threshold:
            self._confident = 0
            return Action.EXTEND, Reason.UNCERTAIN
        self._confident += 1
        if self.tokens < settings.min_tokens:
            return Action.EXTEND, Reason.TOO_FEW_TOKENS
        if self._confident < settings.patience:
            return Action.EXTEND, Reason.PATIENCE
        return Action.STOP, Reason.CONFIDENT


def replay(trace: Trace, settings: GateSettings) -> tuple[Decision, ...]:
    """The gate's decisions on a recorded trace, up to its stop; raises `SignalMismatch` for bits of another kind.

    Where the trace holds fewer steps than the gate would have taken, the last decision is EXTEND.
    """
    settings.signal.require(trace.signal, what=f"the steps of {trace.id}")
    return decisions(trace.steps, settings)


def decisions(steps: Iterable[Step], settings: GateSettings) -> tuple[Decision, ...]:
    """The gate's decisions on recorded steps, up to its stop."""
    gate = Gate(settings)
    made: list[Decision] = []
    for step in steps:
        made.append(gate.observe(step))
        if made[-1].ends:
            break
    return tuple(made)
