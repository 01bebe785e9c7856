"""What the gateway learns from the traffic: the audit's figures, drift, feedback, and traces to calibrate on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import replace
from typing import Final, Literal

from justenough.calibration.calibration import Calibration
from justenough.gateway.exchange import Refused
from justenough.gateway.learn.audit import Audit, Audited, Drift
from justenough.gateway.learn.feedback import Feedback
from justenough.gateway.learn.recalibrate import Recalibration
from justenough.gateway.metrics import Metrics
from justenough.gateway.plan import Plan
from justenough.gateway.request import Asked
from justenough.gateway.serve.elicit import Cut, elicit
from justenough.gateway.serve.sequential import Sequence
from justenough.gateway.serve.streaming import Generation, Outcome
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.stream.record import Recorder, answered
from justenough.gateway.upstream.capability import Capabilities
from justenough.gateway.upstream.client import Upstream
from justenough.gateway.upstream.overshoot import Overshoot
from justenough.grading import Grader, open_grader
from justenough.trace import Probe, Step, Trace

Ended = Literal["stopped", "budget"]

log: Final = logging.getLogger("justenough.gateway")


class Learning:
    """One gateway's; `close` it in the end."""

    def __init__(
        self,
        settings: GatewaySettings,
        upstream: Upstream,
        metrics: Metrics,
        overshoot: Overshoot,
        *,
        adopt: Callable[[Calibration], None] | None = None,
    ) -> None:
        """`adopt` takes a calibration that is to be applied."""
        self.audit = Audit()
        self.recalibration = Recalibration(settings.calibration, adopt=adopt, out=settings.recalibrated)
        self.drift = Drift(settings.calibration)
        self.feedback = Feedback()
        self.recorder: Recorder | None = None
        if settings.record is not None:
            self.recorder = Recorder(settings.record, most_bytes=settings.record_bytes, with_text=settings.record_text)
        self._settings = settings
        self._upstream = upstream
        self._metrics = metrics
        self._overshoot = overshoot
        self._grader: Grader = open_grader(settings.grader)

    def close(self) -> None:
        """Free the grader and the file."""
        self._grader.close()
        if self.recorder is not None:
            self.recorder.close()

    def done(self, plan: Plan, *, done: Ended | None, bits: float | None, answer: str | None) -> None:
        """Count what was done with a request, and follow its first step's entropy; `done`: what ended it early."""
        names = {"observe": "observed", "audit": "audited", "gate": done or "finished"}
        outcome = "budget" if done == "budget" else names[plan.course]
        self._metrics.outcomes[outcome] += 1
        # Another temperature gives other entropies, which say nothing of a drift or of the threshold.
        if bits is None or plan.reason not in (None, "drift"):
            return
        self.feedback.remember(answer, outcome)
        if not self.drift.add(bits):
            return
        if self.drift.drifted:
            self.recalibration.forget()
            log.warning(
                "drift: the first step's entropy is %.4f bits on average, %.1f standard errors from the calibration's;"
                " nothing is stopped until it comes back, or until you calibrate anew",
                self.drift.live_mean,
                self.drift.deviation,
            )
        else:
            log.warning("drift: the first step's entropy is back at the calibration's; the gate decides again")

    def follow(self, settings: GatewaySettings) -> None:
        """Go on under another calibration."""
        self._settings = settings
        self.drift = Drift(settings.calibration)

    def label(self, body: bytes) -> None:
        """Take a client's label; raises `Refused`."""
        given = self.feedback.label(body)
        self.recalibration.label(given.id, correct=given.correct)

    async def streamed(
        self, asked: Asked, generation: Generation, outcome: Outcome, capabilities: Capabilities
    ) -> None:
        """An audited thought: elicit the answer where it would have been stopped, and compare it with the real one."""
        watch = outcome.watch
        final = "".join(outcome.answer)
        try:
            probes: dict[int, tuple[str, int]] = {}
            cuts = [(watch.stopped_at, watch.stopped_text)]
            if generation.record is not None and generation.plan.course == "audit":
                cuts.append((watch.first_tokens, watch.first_text))
            for at, text in cuts:
                if at is not None and text is not None and at not in probes:
                    cut = Cut(text=text, separate=watch.separate, tokens=at)
                    probes[at] = await self._elicited(asked, generation, cut, capabilities)
        except Refused as refused:
            log.warning("an audited request could not be compared: %s", refused.message)
            return
        at = watch.stopped_at
        stop = None if at is None else probes.get(at)
        agreed = True if stop is None else self._agree(stop[0], final)
        gated = watch.tokens if stop is None or at is None else at + stop[1]
        row = Audited(full=watch.tokens, gated=gated, stopped=stop is not None, agreed=agreed)
        # After a drift the gate stops nothing: what it would have saved is no saving.
        if generation.plan.reason is None:
            self.audit.add(row)
        first_said = probes.get(watch.first_tokens)
        first_agreed = True if first_said is None else self._agree(first_said[0], final)
        self.recalibration.example(generation.id, watch.first_entropy, agreed=first_agreed)
        if generation.record is not None and watch.thought:
            closing = generation.record.finish()
            first = probes.get(watch.first_tokens)
            last = self._probe(final, watch.tokens - watch.thought_tokens + closing)
            steps = answered(generation.record.done, first=None if first is None else self._probe(*first), final=last)
            self._record(asked, generation.plan, steps)

    def stepwise(self, asked: Asked, sequence: Sequence) -> None:
        """An audited sequence of steps: what the gate would have taken beside what the last step said."""
        steps, at = sequence.steps, sequence.stopped_at
        taken = steps if at is None else steps[:at]
        # A second model's tokens are not the first one's.
        own = slice(1) if self._settings.cascade is not None else slice(None)
        row = Audited(
            full=sum(step.generated for step in steps[own]),
            gated=sum(step.generated for step in taken[own]),
            stopped=at is not None,
            agreed=True if at is None else self._agree(taken[-1].answer, steps[-1].answer),
            cascade_full=sum(step.generated for step in steps[1:]) if self._settings.cascade is not None else 0,
            cascade_gated=sum(step.generated for step in taken[1:]) if self._settings.cascade is not None else 0,
            cut=False,
        )
        if sequence.plan.reason is None:
            self.audit.add(row)
        first_agreed = self._agree(steps[0].answer, steps[-1].answer)
        self.recalibration.example(sequence.id, sequence.decisions[0].entropy, agreed=first_agreed)
        recorded = tuple(
            Step(
                text=step.text,
                answer=self._grader.extract(step.answer),
                tokens=step.tokens,
                finish=step.finish,
                entropies=tuple(step.bits),
            )
            for step in steps
        )
        self._record(asked, sequence.plan, recorded)

    async def _elicited(
        self, asked: Asked, generation: Generation, cut: Cut, capabilities: Capabilities
    ) -> tuple[str, int]:
        """The answer after a cut, and its tokens."""
        said, tokens = list[str](), 0
        async for piece in elicit(
            self._upstream, self._settings, capabilities, asked, cut, headers=generation.headers, logprobs=False
        ):
            said.append(piece.text)
            counted = piece.usage.completion_tokens if piece.usage is not None else None
            tokens = tokens + bool(piece.text) if counted is None else max(0, counted)
        self.audit.probe_tokens += tokens
        self._overshoot.received += tokens
        return "".join(said), tokens

    def _probe(self, text: str, tokens: int) -> Probe:
        return Probe(answer=self._grader.extract(text), correct=None, tokens=max(0, tokens), text=text)

    def _record(self, asked: Asked, plan: Plan, steps: Many[Step]) -> None:
        if self.recorder is None or not steps:
            return
        calibration, signal = self._settings.calibration, plan.gate.signal
        if calibration is None:
            signal = replace(signal, temperature=asked.temperature)
        self.recorder.add(
            Trace(
                id=hashlib.sha256(asked.identity).hexdigest()[:16],
                task="gateway",
                model=calibration.model if calibration is not None else asked.model or "unknown",
                shape=plan.gate.shape,
                problem=asked.problem,
                prompts=replace(self._settings.prompts, ask="{problem}", think="{problem}"),
                signal=signal,
                steps=tuple(steps),
            )
        )

    def _agree(self, first: str, second: str) -> bool | None:
        mine, theirs = self._grader.extract(first), self._grader.extract(second)
        return None if mine is None or theirs is None else self._grader.grade(mine, theirs)
