"""The decision core: stop, or keep reasoning. It does no I/O; runner, gateway, plugins and replay all use this class.

`feed` takes each token as it arrives, `end_step` ends a step, `observe` takes a recorded step. The safe direction is to
keep reasoning: the gate never stops on a step that has no log-probabilities, or too few of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, Protocol

from justenough.errors import InputError
from justenough.signal.scorer import Scorer
from justenough.signal.signal import MIN_COVERAGE, Signal
from justenough.trace import SHAPES, Shape, Step, Token, Trace
from justenough.trace.meter import StepMeter

Decide = Literal["first", "every"]

DECIDES: Final[tuple[Decide, ...]] = ("first", "every")


class Action(StrEnum):
    """What to do next."""

    CONTINUE = "continue"
    """The step is not over."""
    EXTEND = "extend"
    """Think another step."""
    STOP = "stop"
    """The model is confident: answer now."""
    FINISH = "finish"
    """The last allowed step is done."""


class Reason(StrEnum):
    """Why the gate decided so."""

    WITHIN_STEP = "within_step"
    CONFIDENT = "confident"
    HOPELESS = "hopeless"
    """The last answer is unlikely to be right, so that more steps would only cost."""
    UNCERTAIN = "uncertain"
    NOT_DECISIVE = "not_decisive"
    """`decide` is `first`, and this is a later step."""
    TOO_FEW_TOKENS = "too_few_tokens"
    PATIENCE = "patience"
    """Confident, but not yet in enough steps in a row."""
    NO_THRESHOLD = "no_threshold"
    NO_SIGNAL = "no_signal"
    LOW_COVERAGE = "low_coverage"
    MAX_STEPS = "max_steps"
    BUDGET = "budget"
    """No token is left for another step. The gate's caller sets this reason; the gate itself never does."""
    CONTEXT = "context"
    """The conversation is longer than the model's context. The gate's caller sets this reason too."""
    REFUSED = "refused"
    """The problem is outside the language of the model. The gate's caller sets this reason too."""
    RULE = "rule"
    """Another stopping rule decides, not the gate. The gate's caller sets this reason too."""


EXPLANATIONS: Final = {
    Reason.WITHIN_STEP: "the step is not over",
    Reason.CONFIDENT: "the entropy is at or below the threshold",
    Reason.HOPELESS: "the last answer is unlikely to be right, however many steps follow",
    Reason.UNCERTAIN: "the entropy is above the threshold",
    Reason.NOT_DECISIVE: "only the first step decides, and it was not confident",
    Reason.TOO_FEW_TOKENS: "confident, but fewer tokens than the minimum",
    Reason.PATIENCE: "confident, but not yet in enough steps in a row",
    Reason.NO_THRESHOLD: "there is no threshold, so nothing is stopped",
    Reason.NO_SIGNAL: "the step has no log-probabilities, so the gate does not decide on it",
    Reason.LOW_COVERAGE: "too many tokens came without log-probabilities",
    Reason.MAX_STEPS: "all steps are done",
    Reason.BUDGET: "the token budget is spent",
    Reason.CONTEXT: "the conversation is longer than the model's context",
    Reason.REFUSED: "the problem is outside the language of the model",
    Reason.RULE: "the stopping rule decides so",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do next, and the values behind it."""

    action: Action
    reason: Reason
    step: int
    """Number of the step, from 1."""
    entropy: float | None = None
    """The step's signal, in bits; None if it could not be measured."""
    threshold: float | None = None
    """In bits; None if there is none."""
    margin: float | None = None
    """`threshold - entropy`, or `threshold - score`: 0 or more if the step is confident."""
    score: float | None = None
    """The decider's score, which is compared with the threshold; None where the entropy is."""
    tokens: int = 0
    """Tokens of the step."""
    coverage: float | None = None
    """Share of the tokens that came with log-probabilities, from 0 to 1."""
    hopeless: bool = False
    """Whether the outlook says that the last answer is unlikely to be right."""

    @property
    def ends(self) -> bool:
        """Whether generation is over."""
        return self.action in (Action.STOP, Action.FINISH)

    @property
    def explanation(self) -> str:
        """The reason as a sentence for people; it names what was compared with the threshold."""
        sentence = EXPLANATIONS[self.reason]
        return sentence if self.score is None else sentence.replace("entropy", "decider score")


class GateSource(Protocol):
    """The part of a calibration that a gate needs."""

    @property
    def threshold(self) -> float | None:
        """In bits; None means: never stop."""

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
        """Number of the step after which a run always ends."""

    @property
    def min_tokens(self) -> int:
        """Tokens that must be generated before the first stop."""

    @property
    def patience(self) -> int:
        """Confident steps in a row that a stop needs."""

    @property
    def decider(self) -> Scorer | None:
        """What is compared with the threshold in place of the signal."""

    @property
    def outlook(self) -> Scorer | None:
        """P(the last answer is right)."""

    @property
    def give_up(self) -> float | None:
        """Threshold of the outlook."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """When to stop. A gate without a threshold only counts steps."""

    threshold: float | None = None
    """In bits: stop if the step's signal is at or below it. None: never stop."""
    signal: Signal = field(default_factory=Signal)
    """How a step is measured."""
    shape: Shape = "sequential"
    """Whether a step is a whole completion (`sequential`) or a part of one thought (`streaming`)."""
    decide: Decide = "first"
    """`first`: only step 1 can stop the run (as in the paper); `every`: each step can."""
    max_steps: int = 4
    """Number of the step after which a run always ends."""
    min_tokens: int = 0
    """Tokens that must be generated before the first stop."""
    patience: int = 1
    """Confident steps in a row that a stop needs; more than 1 needs `decide="every"`."""
    decider: Scorer | None = None
    """A score that is compared with the threshold in place of the signal; None: the signal itself."""
    outlook: Scorer | None = None
    """P(the last answer is right), from all that the run has shown so far; only for giving up."""
    give_up: float | None = None
    """Stop as hopeless if the outlook is at or below it. None: never give up."""
    flag_hopeless: bool = False
    """Whether a hopeless run goes on, and its decisions only say so."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InputError(f"threshold {self.threshold!r} is not a number of bits", hint="finite; None never stops")
        for name, value, allowed in (("shape", self.shape, SHAPES), ("decide", self.decide, DECIDES)):
            if value not in allowed:
                raise InputError(f"{name} is {value!r}", hint=f"one of {', '.join(allowed)}")
        if self.max_steps < 1 or self.patience < 1 or self.min_tokens < 0:
            raise InputError(
                f"max_steps {self.max_steps}, patience {self.patience}, min_tokens {self.min_tokens}",
                hint="max_steps and patience must be at least 1, min_tokens at least 0",
            )
        if (self.outlook is None) is not (self.give_up is None):
            raise InputError("giving up needs an outlook and its threshold", hint="give both or none")
        if self.patience > 1 and self.decide == "first":
            raise InputError(
                f"patience {self.patience} needs later steps, but only the first step decides", hint="decide: every"
            )

    @classmethod
    def of(cls, calibration: GateSource) -> GateSettings:
        """The gate settings of a calibration."""
        return cls(
            threshold=calibration.threshold,
            signal=calibration.signal,
            shape=calibration.shape,
            decide=calibration.decide,
            max_steps=calibration.max_steps,
            min_tokens=calibration.min_tokens,
            patience=calibration.patience,
            decider=calibration.decider,
            outlook=calibration.outlook,
            give_up=calibration.give_up,
        )


class Gate:
    """Decides when to stop on one problem; make a new gate for each problem."""

    def __init__(self, settings: GateSettings) -> None:
        self.settings = settings
        self.meter = StepMeter(settings.signal, shape=settings.shape)
        """Measures the current step. Drivers that see many tokens per second may call it instead of `feed`."""
        self.steps = 0
        """Steps that have ended."""
        self.tokens = 0
        """Tokens of all ended steps."""
        self._confident = 0
        self._score = None if settings.decider is None else settings.decider.begin()
        self._outlook = None if settings.outlook is None else settings.outlook.begin()
        self._over = False

    def feed(self, token: Token) -> Decision:
        """Take the next token. If it completes a streaming step, the gate decides; otherwise the action is CONTINUE.

        Raises `LogprobsError` if the signal cannot be measured on the token's log-probabilities.
        """
        self._check()
        if self.meter.hear(token):
            return self.end_step()
        return Decision(
            action=Action.CONTINUE,
            reason=Reason.WITHIN_STEP,
            step=self.steps + 1,
            threshold=self.settings.threshold,
            tokens=self.meter.tokens,
        )

    def end_step(self, *, tokens: int | None = None) -> Decision:
        """End the step and decide; `tokens` is the true number if more were generated than fed."""
        self._check()
        bits, generated, covered = self.meter.end(tokens=tokens)
        return self._decide(bits, tokens=generated, covered=covered)

    def observe(self, step: Step) -> Decision:
        """Decide on a recorded step. The decision is the same as after feeding its tokens."""
        self._check()
        return self._decide(step.bits(self.settings.signal), tokens=step.tokens, covered=step.coverage())

    def _check(self) -> None:
        if self._over:
            raise InputError("the gate has already ended this problem", hint="make a new Gate for each problem")

    def _decide(self, bits: float | None, *, tokens: int, covered: float | None) -> Decision:
        settings = self.settings
        self.steps += 1
        self.tokens += tokens
        usable = bits if covered is None or covered >= MIN_COVERAGE else None
        score = bits if self._score is None else self._score.after(usable, tokens)
        outlook = None if self._outlook is None else self._outlook.after(usable, tokens)
        hopeless = outlook is not None and settings.give_up is not None and outlook <= settings.give_up
        gives_up = hopeless and not settings.flag_hopeless
        action, reason = self._verdict(bits, score, covered, hopeless=gives_up)
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
            margin=None if score is None or threshold is None else threshold - score,
            score=None if self._score is None else score,
            tokens=tokens,
            coverage=covered,
            hopeless=hopeless,
        )

    def _verdict(
        self, bits: float | None, score: float | None, covered: float | None, *, hopeless: bool
    ) -> tuple[Action, Reason]:
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
        if not hopeless and (score is None or score > settings.threshold):
            self._confident = 0
            return Action.EXTEND, Reason.UNCERTAIN
        self._confident += 1
        if self.tokens < settings.min_tokens:
            return Action.EXTEND, Reason.TOO_FEW_TOKENS
        if self._confident < settings.patience:
            return Action.EXTEND, Reason.PATIENCE
        return Action.STOP, Reason.HOPELESS if hopeless else Reason.CONFIDENT


def replay(trace: Trace, settings: GateSettings) -> tuple[Decision, ...]:
    """The gate's decisions on a recorded trace, up to its stop.

    The last decision is EXTEND if the trace has fewer steps than the gate wants. Raises `SignalMismatch` if the trace's
    signal is not the gate's.
    """
    settings.signal.require(trace.signal, what=f"the steps of {trace.id}", own="the gate's")
    return decisions(trace.steps, settings)


def decisions(steps: Iterable[Step], settings: GateSettings) -> tuple[Decision, ...]:
    """The gate's decisions on recorded steps, up to its stop."""
    gate = Gate(settings)
    taken: list[Decision] = []
    for step in steps:
        taken.append(gate.observe(step))
        if taken[-1].ends:
            break
    return tuple(taken)
