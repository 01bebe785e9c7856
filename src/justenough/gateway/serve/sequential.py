"""The sequential shape: whole completions one after the other until the gate accepts one.

Every step streams at once as reasoning. Only the answer of the accepted step is sent as content. If a later step fails,
the answer of the step before is accepted.
"""

from __future__ import annotations

import logging
from typing import Final

from justenough.errors import LogprobsError
from justenough.gate import Action, Decision, Gate
from justenough.gateway.exchange import Refused
from justenough.gateway.plan import Report, decision_rows, header, report
from justenough.gateway.serve.elicit import Echo, unread_whole
from justenough.gateway.serve.extend import CompletionStep, next_request, server_of
from justenough.gateway.serve.work import Job, Work, WorkPhase, usage_in
from justenough.gateway.stream.edits import trimmed
from justenough.gateway.stream.events import (
    Payloads,
    Unusable,
    batches,
    decoded,
    head_of,
    read,
    stream_of,
    unfinished,
    unread_bytes,
)
from justenough.trace import Json, Token
from justenough.wire.chunks import OddChunk
from justenough.wire.logprobs import entries_of, fitted, unmasked

log: Final = logging.getLogger("justenough.gateway")


class Sequence(Work):
    """Serves one chat, step by step."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.steps: list[CompletionStep] = []
        self.decisions: list[Decision] = []
        self.stopped_at: int | None = None
        """The step (from 1) at which the gate stopped, or would have stopped in an audited request."""
        self.entries = 0
        """Tokens of the gate with log-probabilities."""
        self.notes: dict[str, None] = {}
        self._current: CompletionStep | None = None
        self._streaming = False
        self._asked = False
        """Whether the client wants the answer now."""
        self._gate = Gate(job.plan.gate)
        self._echo = Echo()
        self._usage_event = b""
        """The first step's last event with a usage."""

    async def _run(self) -> None:
        while True:
            try:
                await self._step()
            except Refused as refused:
                if not self.steps:
                    raise
                self.failure = refused.message
                if refused.code == "unknown_tags":
                    self.notes["unknown_tags"] = None
                log.warning("step %d failed, its predecessor's answer is used: %s", len(self.steps) + 1, self.failure)
                break
            if self.meter is not None:
                return
            if self.ends_now or self._is_over():
                break
            if self._asked:
                self.ends_now = True
                break
            if self.request.control.decisions:
                fresh = decision_rows(self.decisions[len(self.steps) - 1 :])
                await self._output.send([self._chunk({}, justenough={"decisions": fresh})])
        await self._finish()

    async def _step(self) -> None:
        settings = self.job.settings
        step = self._current = CompletionStep(self.job.formats)
        number = len(self.steps) + 1
        sent = await next_request(self.job, self.steps, left=self._left())
        self._echo = Echo(sent.echo)
        server, headers = server_of(self.job, number)
        async with server.open("POST", sent.target, headers=headers, body=sent.body) as answer:
            stream = (await stream_of(answer))[0] if self.steps else await self._stream_of(answer)
            if stream is None and self.steps:
                step.unseen += unread_whole(answer)
                message = f"the upstream answered a later step with status {answer.status}"
                raise Refused(502, message, code="continuation_failed")
            if stream is None:
                return
            if not self.steps:
                await self._output.begin(list(stream.raw_headers), self.plan.header)
            elif settings.extend == "wait":
                # It is part of the prompt; for the client it is part of the thought.
                await self._output.send([self._chunk({"reasoning_content": settings.prompts.wait})])
            self._streaming = True
            received = Payloads(limit=settings.limits.max_event_bytes)
            async for batch in batches(stream, received, keep_alive=self._output.keep_alive):
                views: list[bytes] = []
                try:
                    for number, payload in enumerate(batch):
                        try:
                            view = self._take(payload, step)
                        except Refused as refused:
                            step.unseen += unread_bytes(refused, batch[number:])
                            raise
                        views += [] if view is None else [view]
                finally:
                    # An error among the events loses none of those before it.
                    if views:
                        await self._show(views)
                if self._asked and self.steps:
                    # The answer of the step before is the best one so far.
                    self.ends_now = True
                    return
        if not step.ends(done=received.done):
            is_partial = self.request.stream and step.tokens > 0 and not step.foreign
            raise unfinished() if self.steps or is_partial else Unusable("it has no end")
        self.steps.append(step)
        self._current, self._streaming = None, False

    def _left(self) -> int | None:
        """Completion tokens left of the client's limit."""
        return None if self.request.max_tokens is None else self.request.max_tokens - self.generated

    def _take(self, payload: bytes, step: CompletionStep) -> bytes | None:
        """Take an event; its text for the client, as reasoning. The first step's unreadable events are passed on."""
        try:
            chunk = read(payload)
        except Unusable as unusable:
            if self.steps or unusable.code == "upstream_error":
                raise
            chunk = OddChunk(complaint=unusable.message)
        step.foreign = chunk.is_foreign
        if isinstance(chunk, OddChunk) and chunk.complaint:
            if self.steps:
                # The answer of the step before is complete.
                raise Unusable("it sent something that is not a chunk")
            self._keep_text_of(payload, passes=self.request.stream and (step.tokens > 0 or self._shows))
            self.notes["unreadable_chunk"] = None
            step.unseen += len(payload)
            return payload
        if step.model is None and chunk.choice is not None:
            # All steps have the id of the first one, whichever model generates them.
            shared = head_of(payload)
            step.model = str(shared.get("model"))
            self._head = self._head or shared
            self._head["model"] = shared.get("model")
        if chunk.usage is not None:
            self._usage_event = self._usage_event if self.steps else payload
            if chunk.usage.completion_tokens is not None:
                step.counted, step.unseen = chunk.usage.completion_tokens, 0
        choice = chunk.choice
        if choice is None:
            return None
        reasoning, content = choice.texts(apart=step.apart)
        step.finish = choice.finish_reason or step.finish
        new = self._echo.without(reasoning + content, last=step.finish is not None)
        if new is None:
            return None
        if new != reasoning + content:
            reasoning, content = "", new
        entries = entries_of(choice.logprobs)
        tokens, right = fitted(reasoning + content, entries, finish=choice.finish_reason)
        if not right:
            self.notes["misaligned_logprobs"] = None
        if tokens and not entries:
            step.unseen += len((reasoning + content).encode(errors="replace")) - 1
        for token in tokens:
            self._take_token(token, step)
        step.add(reasoning, content, payload)
        if calls := {key: decoded(raw) for key, raw in choice.calls.items()}:
            self.notes["tool_calls"] = None
        if not (reasoning or content or calls):
            return None
        wants = self.request.logprobs and choice.logprobs
        logprobs = trimmed(decoded(choice.logprobs), self.request.top_logprobs) if wants else None
        return self._chunk({"reasoning_content": reasoning + content, **calls}, logprobs=logprobs)

    def _take_token(self, token: Token, step: CompletionStep) -> None:
        step.tokens += 1
        if self.plan.course == "audit":
            try:
                bits = token.bits(self.plan.gate.signal)
            except LogprobsError:
                bits = None
            step.bits += [] if bits is None else [bits]
        # An audited request continues after the gate's stop. The threshold is not for the second model's tokens.
        if self.stopped or (self.job.cascade is not None and self.steps):
            return
        self.entries += token.top_logprobs is not None
        if token.top_logprobs is None and token.text:
            self.notes["missing_logprobs"] = None
        try:
            self._gate.meter.hear(unmasked(token) if self.plan.gate.signal.logits == "raw" else token)
        except LogprobsError:
            self.notes["short_logprobs"] = None
            self._gate.meter.hear(Token(text=token.text))

    def _is_over(self) -> bool:
        """Let the gate decide on the step that ended; whether there is no further step."""
        step = self.steps[-1]
        cut_by_budget = step.finish == "length" and self.plan.is_spent(self.generated)
        if not self.stopped:
            # The upstream also counts the end of the turn, which is not a token of the step.
            counted = None if step.counted is None else step.counted - (step.finish == "stop")
            decision = self._gate.end_step(tokens=counted)
            self.decisions.append(decision)
            if decision.action is Action.STOP and not cut_by_budget:
                self.stopped, self.stopped_at = True, len(self.steps)
        if cut_by_budget:
            self.out_of_budget = True
            return True
        if self.notes.keys() & {"unreadable_chunk", "tool_calls"} or step.is_only_other:
            # The text is not the whole step, so that nothing can be asked about it.
            return True
        audited = self.plan.course == "audit" and len(self.steps) < self.plan.gate.max_steps
        if (self.stopped or self.decisions[-1].ends) and not audited:
            return True
        left = self._left()
        # If only the answer's tokens are left, another step would be cut off.
        self.out_of_budget = self.plan.is_spent(self.generated)
        return self.out_of_budget or (left is not None and left < 1)

    @property
    def left_early(self) -> int:
        """Upstream streams that were left, or are being left, before their end."""
        return self._streaming

    @property
    def generated(self) -> int:
        """Completion tokens so far, of all steps."""
        running = [] if self._current is None else [self._current]
        return sum(step.generated for step in (*self.steps, *running))

    @property
    def phase(self) -> WorkPhase:
        """What the model does now: every step is shown as reasoning."""
        return "thinking"

    @property
    def can_answer(self) -> bool:
        """Whether a further step can be prevented."""
        return self.meter is None

    def answer_now(self) -> None:
        """Accept the last whole step; during the first step, that one."""
        self._asked = True

    @property
    def unseen(self) -> int:
        """Tokens that may have been generated beyond those counted."""
        running = [] if self._current is None else [self._current]
        return sum(step.unseen for step in (*self.steps, *running))

    @property
    def cascade_tokens(self) -> int:
        """Completion tokens of the second model."""
        return 0 if self.job.cascade is None or not self.steps else self.generated - self.steps[0].generated

    @property
    def gated_tokens(self) -> int:
        """Completion tokens of the calibrated model."""
        return self.generated - self.cascade_tokens

    @property
    def undecided(self) -> list[str]:
        """Why the gate could not decide."""
        return list(self.notes)

    @property
    def first_entropy(self) -> float | None:
        """Bits of the first step."""
        return self.decisions[0].entropy

    @property
    def accepted(self) -> CompletionStep:
        """The step with the answer: the last one, or the one before if the budget cut the last one."""
        return self.steps[self._accepted - 1]

    @property
    def _accepted(self) -> int:
        cut = self.out_of_budget and self.steps[-1].finish == "length" and len(self.steps) > 1
        return len(self.steps) - cut

    async def _finish(self) -> None:
        step = self.accepted
        await self._output.send([self._chunk(step.delta), self._chunk({}, finish=step.finish)])
        if any(each.counted is not None for each in self.steps):
            # The prompt is the client's own, as the first step read it.
            tokens, own = self.generated, {"prompt_tokens": 0} | usage_in(self._usage_event)
            await self._send_usage(own, completion=tokens, reasoning=tokens - step.generated)
        last = self.report()
        await self._output.end(header(last), last)

    def _chunk(
        self,
        delta: dict[str, Json],
        *,
        finish: str | None = None,
        logprobs: Json = None,
        justenough: dict[str, Json] | None = None,
    ) -> bytes:
        row: dict[str, Json] = {"index": 0, "delta": delta, "finish_reason": finish}
        if logprobs is not None:
            row["logprobs"] = logprobs
        return self._encoded(row, justenough)

    def report(self) -> Report:
        """The `justenough` object of the answer."""
        tokens = self.generated
        early = (
            (self.ends_now, "answer_now"),
            (self.failure is not None, "step_failed"),
            (self.out_of_budget, "budget"),
        )
        reason = next((name for holds, name in early if holds), None)
        out = report(
            self.plan,
            self.decisions[-1],
            stopped=self.ends_now or (self.stopped and self.plan.course == "gate"),
            reason=reason or self.decisions[-1].reason.value,
            tokens=tokens,
            thought_tokens=tokens - self.accepted.generated,
            probe_tokens=0,
            notes=self.undecided,
            hopeless=any(decision.hopeless for decision in self.decisions),
        )
        counted = all(step.counted is not None for step in self.steps) and self._current is None
        out["usage_source"] = "upstream" if counted else "received"
        out["steps"] = len(self.steps)
        if self.failure is not None:
            out["failure"] = self.failure
        if self.out_of_budget:
            out["step"] = self._accepted
        if self.job.cascade is not None:
            # `tokens` and `usage` are sums over both models.
            out["tokens_by_model"] = [{"model": step.model, "tokens": step.generated} for step in self.steps]
        if self.plan.course == "audit" and self.stopped_at is not None:
            out["would_stop_at"] = sum(step.generated for step in self.steps[: self.stopped_at])
        if self.request.control.decisions:
            out["decisions"] = decision_rows(self.decisions)
        return out
