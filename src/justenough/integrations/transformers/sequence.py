"""One sequence of a batch: its thought is followed token by token, closed where the gate stops, and reported.

It knows token ids and texts, but no tensors. The batch reads `forced` before each token, and gives it to `take`.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Ids
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from justenough.calibration.calibration import Calibration, require_calibration
from justenough.errors import InputError, SignalMismatch
from justenough.gate import GateSettings
from justenough.gateway.plan import Plan, Report, decision_rows, report
from justenough.gateway.stream.watch import Watch
from justenough.prompts import GENERAL, Prompts
from justenough.signal.thought import ANY, THINK, Phase, ThoughtFormat, named_in, opened_by, require_format
from justenough.trace import Token

_NO_LIMIT: Final = 1_000_000_000
"""Step limit for unbounded thoughts."""
_TEMPERATURE_ROUNDING: Final = 1e-6


class Measured(NamedTuple):
    """The measurement behind one sampled token; natural log-probabilities, or bits."""

    logprob: float
    top_logprobs: tuple[float, ...] | None = None
    entropy: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """What all sequences of one call share."""

    gate: GateSettings
    prompts: Prompts
    formats: tuple[ThoughtFormat, ...]
    """The formats that the thought may have, the configured one first."""
    encode: Callable[[str], list[int]]
    """The token ids of a text, without special tokens around it."""

    def formats_after(self, prompt: str) -> tuple[ThoughtFormat, ...]:
        """The formats that the thought may have after a prompt, which may have opened it."""
        opened = None if self.formats[0].cue else opened_by(prompt, self.formats)
        return self.formats if opened is None else (opened,)

    def closing(self, format: ThoughtFormat) -> list[int]:
        """The token ids that close a thought and begin its answer."""
        prompts = self.prompts.with_thought(format)
        return self.encode(prompts.close + prompts.answer)


def stopping(
    calibration: Calibration,
    *,
    thought: ThoughtFormat | None,
    chat_template: str | None,
    encode: Callable[[str], list[int]],
) -> Stopping:
    """The settings for `generate` from a calibration; raises `SignalMismatch` if it cannot be used there."""
    require_calibration(calibration)
    if thought is not None:
        require_format(thought)
    gate, signal = GateSettings.of(calibration), calibration.signal
    hint = "calibrate on traces of one long thought: justenough collect --shape streaming"
    if gate.shape != "streaming":
        raise SignalMismatch(f"the calibration is for {gate.shape} steps, not for those inside one thought", hint=hint)
    if signal.kind != "entropy" or signal.logits == "processed":
        what = f"{signal.logits} logits" if signal.kind == "entropy" else signal.kind
        raise SignalMismatch(f"the calibration measures {what}, `generate` measures raw logits", hint=hint)
    stored = calibration.prompts
    format = thought or (None if stored is None else stored.thought) or named_in(chat_template or "") or THINK
    others = () if thought or format.opened else tuple(other for other in ANY if other.tags != format.tags)
    return Stopping(
        gate=replace(gate, max_steps=_NO_LIMIT),
        prompts=(stored or replace(GENERAL, answer="")).with_thought(format),
        formats=(format, *others),
        encode=encode,
    )


def require_temperature(calibration: Calibration, temperature: float) -> None:
    """Raise `SignalMismatch` for a sampling temperature that is not the calibration's; 0 is greedy."""
    calibrated = calibration.signal.temperature
    if calibrated is not None and not abs(calibrated - temperature) < _TEMPERATURE_ROUNDING:
        options = f"do_sample=True, temperature={calibrated!r}" if calibrated else "do_sample=False"
        hint = f"generate(…, {options}), or calibrate on traces of this one"
        raise SignalMismatch(f"temperature {temperature!r} is not the calibration's {calibrated!r}", hint=hint)


class Sequence:
    """One sequence of a batch."""

    def __init__(self, shared: Stopping, *, prompt: str, texts: Callable[[int], str], ends: frozenset[int]) -> None:
        """`prompt`: the end of its prompt; `texts`: the text of each token in turn; `ends`: ids that end a sequence."""
        first, *others = shared.formats_after(prompt)
        self.finished = False
        self._shared, self._texts, self._ends = shared, texts, ends
        self._watch = Watch(shared.gate, cut=True, thought=first, others=others)
        self._closing: Ids[int] | None = None
        """The ids that still have to be forced; None: the thought was not stopped."""
        self._answer_tokens = 0

    @property
    def forced(self) -> int | None:
        """The id that must come next; None: the model chooses."""
        return self._closing[0] if self._closing else None

    @property
    def measures(self) -> bool:
        """Whether the gate needs the measurement of the next token."""
        return not self.finished and self._closing is None and self._watch.phase is not Phase.ANSWERING

    def take(self, token_id: int, measured: Measured | None, *, last: bool = False) -> None:
        """Take the next token of the sequence; `last`: the sequence ends with it."""
        self.finished = last
        if self._closing:
            self._closing = self._closing[1:]
        elif token_id in self._ends:
            self.finished = True
        elif self._closing is not None:
            self._answer_tokens += 1
        else:
            token = Token(self._texts(token_id))
            if measured is not None:
                token = token._replace(**measured._asdict())
            if self._watch.take_token(token) and not last:
                self._closing = self._shared.closing(self._watch.format)

    def report(self) -> Report:
        """The gateway's report, with the decision on each step; forced tokens are not counted."""
        watch = self._watch
        decision = watch.stopped or watch.decision
        reason = decision.reason.value if decision is not None else "no_step" if watch.thought else "no_thought"
        out = report(
            Plan(course="gate", gate=self._shared.gate),
            decision,
            stopped=self._closing is not None,
            reason=reason,
            tokens=watch.tokens + self._answer_tokens,
            thought_tokens=watch.thought_tokens,
            probe_tokens=self._answer_tokens,
            notes=list(watch.notes),
            hopeless=any(one.hopeless for one in watch.decisions),
        )
        return out | {"decisions": decision_rows(watch.decisions)}


def no_room(what: str, *, hint: str) -> InputError:
    """The error for a way to generate in which the gate would silently not work."""
    return InputError(f"a thought cannot be stopped in {what}", hint=hint)
