"""What the gateway learns from its traffic: the audit, drift, feedback, and traces for a calibration."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from collections.abc import Sequence as Rows
from dataclasses import replace
from typing import Final, NamedTuple

from justenough.calibration.calibration import Calibration
from justenough.gateway.exchange import Refused
from justenough.gateway.learn.audit import Audit, Audited
from justenough.gateway.learn.drift import Drift
from justenough.gateway.learn.feedback import Feedback
from justenough.gateway.learn.recalibrate import Recalibration
from justenough.gateway.metrics import Metrics
from justenough.gateway.serve.elicit import Cut, Tally, elicit
from justenough.gateway.serve.sequential import Sequence
from justenough.gateway.serve.streaming import Generation
from justenough.gateway.serve.work import Job
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.stream.record import Recorder, answered
from justenough.gateway.upstream.overshoot import Overshoot
from justenough.grading import Grader, open_grader
from justenough.signal.thought import ThoughtFormat
from justenough.trace import Probe, Step, Trace

log: Final = logging.getLogger("justenough.gateway")


class _Comparison(NamedTuple):
    """An audited request, compared with what the gate would have returned."""

    row: Audited
    first_agreed: bool | None
    """Whether the first step's answer is the last one; None if one could not be read."""
    steps: Rows[Step]
    """What is recorded; empty without a thought."""


class Learning:
    """What one gateway has learned; `close` it at the end."""

    def __init__(
        self,
        settings: GatewaySettings,
        metrics: Metrics,
        overshoot: Overshoot,
        *,
        adopt: Callable[[Calibration], None] | None = None,
    ) -> None:
        """`adopt` applies a new calibration; None: none is ever applied."""
        self.audit = Audit()
        self.recalibration = Recalibration(settings.calibration, adopt=adopt, out=settings.recalibrated)
        self.drift = Drift(settings.calibration)
        self.feedback = Feedback()
        self.recorder: Recorder | None = None
        if settings.record is not None:
            self.recorder = Recorder(settings.record, most_bytes=settings.record_bytes, with_text=settings.record_text)
        self._metrics = metrics
        self._overshoot = overshoot
        self._grader: Grader = open_grader(settings.grader)

    def close(self) -> None:
        """Close the grader and the file."""
        self._grader.close()
        if self.recorder is not None:
            self.recorder.close()

    def count(self, work: Generation | Sequence, *, client: str) -> None:
        """Count the outcome of a request, and compare the entropy of its first step with the calibration's."""
        plan, request, bits = work.plan, work.request, work.first_entropy
        names = {"observe": "observed", "audit": "audited", "gate": work.ended or "finished"}
        outcome = work.ended if work.ended in ("budget", "answer_now") else names[plan.course]
        self._metrics.outcomes[outcome] += 1
        if plan.course == "observe" and plan.reason is not None:
            self._metrics.observed[plan.reason] += 1
        # At another temperature the entropies differ. They say nothing about drift or the threshold.
        if bits is None or plan.reason not in (None, "drift"):
            return
        self.feedback.remember(work.id, outcome)
        # A client that shapes its request or only watches must not move the alarm.
        if not request.keeps_logprobs or request.control.mode is not None:
            return
        if not self.drift.add(bits, client, plain=request.is_plain):
            return
        if self.drift.drifted:
            self.recalibration.forget()
            log.warning(
                "drift: the first step's entropy is %.4f bits on average, %.1f standard errors from the calibration's;"
                " nothing is stopped until it comes back, or until you calibrate again",
                self.drift.live_mean,
                self.drift.deviation,
            )
        else:
            log.warning("drift: the first step's entropy is back at the calibration's; the gate decides again")

    def follow(self, calibration: Calibration) -> None:
        """Watch the drift from another calibration."""
        self.drift = Drift(calibration)

    def label(self, body: bytes) -> None:
        """Take a client's label; raises `Refused`."""
        label = self.feedback.label(body)
        self.recalibration.label(label.id, correct=label.correct)

    async def audit_request(self, work: Generation | Sequence) -> None:
        """Compare an audited request that ran to its end with what the gate would have returned."""
        try:
            comparison = self._sequence(work) if isinstance(work, Sequence) else await self._generation(work)
        except Refused as refused:
            log.warning("an audited request could not be compared: %s", refused.message)
            return
        # After a drift the gate stops nothing, so there is no saving to measure.
        if work.plan.reason is None:
            self.audit.add(comparison.row)
        # The request must not be shaped by its client, who could otherwise choose the threshold for all.
        if work.request.keeps_logprobs:
            self.recalibration.example(work.id, work.first_entropy, agreed=comparison.first_agreed)
        if self.recorder is not None and comparison.steps:
            thought = work.watch.format if isinstance(work, Generation) else None
            self.recorder.add(_trace(work.job, comparison.steps, thought=thought))

    async def _generation(self, work: Generation) -> _Comparison:
        """Elicit the answers at the stop and after the first step, and compare them with the final answer."""
        watch, final = work.watch, "".join(work.answer)
        answers: dict[int, tuple[str, int]] = {}
        is_cut = watch.continuable and "stop_sequence" not in watch.notes
        for at, text in ((watch.stopped_at, watch.stopped_text), (watch.first_tokens, watch.first_text)):
            if at is not None and text is not None and at not in answers and is_cut:
                cut = Cut(text=text, separate=watch.separate, tokens=at, format=watch.format)
                answers[at] = await self._elicited(work.job, cut)
        at = watch.stopped_at
        stop = None if at is None else answers.get(at)
        row = Audited(
            full=watch.tokens,
            gated=watch.tokens if stop is None or at is None else at + stop[1],
            stopped=stop is not None,
            agreed=True if stop is None else self._agree(stop[0], final),
        )
        first = answers.get(watch.first_tokens)
        agreed = None if watch.first_text is not None else True
        steps: Rows[Step] = ()
        if work.record is not None and watch.thought:
            closing = work.record.finish()
            last = self._probe(final, watch.tokens - watch.thought_tokens + closing)
            steps = answered(work.record.done, first=None if first is None else self._probe(*first), final=last)
        return _Comparison(row, agreed if first is None else self._agree(first[0], final), steps)

    def _sequence(self, work: Sequence) -> _Comparison:
        """Compare the answer of the step at which the gate would have stopped with the last step's."""
        steps = work.steps
        gated = steps[: work.stopped_at]
        # The tokens of a second model are counted separately.
        own = 1 if work.job.cascade is not None else len(steps)
        row = Audited(
            full=sum(step.generated for step in steps[:own]),
            gated=sum(step.generated for step in gated[:own]),
            stopped=work.stopped,
            agreed=not work.stopped or self._agree(gated[-1].answer, steps[-1].answer),
            cascade_full=sum(step.generated for step in steps[own:]),
            cascade_gated=sum(step.generated for step in gated[own:]),
            cut=False,
        )
        trace = [
            Step(
                text=step.text,
                answer=self._grader.extract(step.answer),
                tokens=step.tokens,
                finish=step.finish,
                entropies=tuple(step.bits),
            )
            for step in steps
        ]
        return _Comparison(row, self._agree(steps[0].answer, steps[-1].answer), trace)

    async def _elicited(self, job: Job, cut: Cut) -> tuple[str, int]:
        """The answer after a cut, and its tokens."""
        texts, tally = list[str](), Tally()
        try:
            async for piece in elicit(job, cut, logprobs=False):
                texts.append(piece.text)
                tally.take(piece)
        finally:
            self.audit.probe_tokens += tally.total
            self._overshoot.received += tally.total
        return "".join(texts), tally.total

    def _probe(self, text: str, tokens: int) -> Probe:
        return Probe(answer=self._grader.extract(text), correct=None, tokens=max(0, tokens), text=text)

    def _agree(self, first: str, second: str) -> bool | None:
        """Whether two texts contain the same answer; None if one of them contains none."""
        answer, other = self._grader.extract(first), self._grader.extract(second)
        return None if answer is None or other is None else self._grader.grade(answer, other)


def _trace(job: Job, steps: Rows[Step], *, thought: ThoughtFormat | None) -> Trace:
    calibration, signal, prompts = job.settings.calibration, job.plan.gate.signal, job.settings.prompts
    prompts = prompts if thought is None else prompts.with_thought(thought)
    if calibration is None:
        signal = replace(signal, temperature=job.request.temperature)
    return Trace(
        id=hashlib.sha256(job.request.identity).hexdigest()[:16],
        task="gateway",
        model=calibration.model if calibration is not None else job.request.model or "unknown",
        shape=job.plan.gate.shape,
        problem=job.request.problem,
        prompts=replace(prompts, ask="{problem}", think="{problem}"),
        signal=signal,
        steps=tuple(steps),
    )
