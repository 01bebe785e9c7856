"""The sequential shape: whole completions one after the other until the gate is content with one.

Every step streams at once as reasoning; only the answer of the step that is accepted comes as content. Nothing of an
abandoned step is shown as the answer.
"""

from __future__ import annotations

import msgspec

from justenough.errors import LogprobsError
from justenough.gate import Action, Decision, Gate
from justenough.gateway.exchange import Exchange, Refused
from justenough.gateway.plan import Plan, Report, decided, header, report
from justenough.gateway.request import Asked
from justenough.gateway.serve.extend import Extender, Said
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.stream.edits import trimmed
from justenough.gateway.stream.events import batches, decoded, head_of, is_events, malformed, read, unfinished
from justenough.gateway.stream.output import EventOutput, Output, WholeOutput
from justenough.gateway.upstream.capability import Capabilities
from justenough.gateway.upstream.client import Upstream
from justenough.gateway.upstream.refusal import pass_unless_refused
from justenough.trace import Json, Token
from justenough.wire import OddChunk, entries_of, fitted


class Sequence:
    """Serves one chat, step by step."""

    def __init__(
        self,
        exchange: Exchange,
        asked: Asked,
        plan: Plan,
        *,
        upstream: Upstream,
        cascade: Upstream | None,
        settings: GatewaySettings,
        capabilities: Capabilities,
    ) -> None:
        self.exchange = exchange
        self.asked = asked
        self.plan = plan
        self.steps: list[Said] = []
        self.decisions: list[Decision] = []
        self.stopped_at: int | None = None
        """The step, from 1, after which the gate would stop; where it is not audited it did."""
        self.entries = 0
        """Tokens that came with log-probabilities, and were fed to the gate."""
        self.relayed = False
        """The upstream's own answer was passed back: an error, or no stream."""
        self.out_of_budget = False
        """It ended because its budget was spent, not because the gate was content."""
        self._current: Said | None = None
        """The step under way."""
        self._streaming = False
        """Whether its stream has begun."""
        self._gate = Gate(plan.gate)
        self._settings = settings
        self._output: Output = (
            EventOutput(exchange)
            if asked.stream
            else WholeOutput(exchange, asked.kind, limit=settings.limits.max_answer_bytes)
        )
        self._head: dict[str, Json] = {}
        self.notes: dict[str, None] = {}
        """Why the gate could not decide where it should have, in the order of first happening."""
        self._echo = ""
        """What the server is about to repeat of the request, and of which this much has come."""
        self._echoed = ""
        self._extender = Extender(
            asked,
            upstream=upstream,
            cascade=cascade,
            settings=settings,
            capabilities=capabilities,
            headers=[pair for pair in exchange.headers if pair[0] not in (b"accept-encoding", b"content-length")],
            top=max(plan.gate.signal.top_k or settings.top_k, asked.top_logprobs),
        )

    async def run(self) -> None:
        """Answer the client; raises `Refused`, or `LogprobsRefused` before anything was answered."""
        while True:
            await self._step()
            if self.relayed:
                return
            if self._over():
                break
            if self.asked.control.decisions:
                fresh = decided(self.decisions[len(self.steps) - 1 :])
                await self._output.send([self._chunk({}, said={"decisions": fresh})])
        await self._finish()

    async def _step(self) -> None:
        said = self._current = Said(self._settings.prompts.thought)
        number = len(self.steps) + 1
        asking = await self._extender.asking(self.steps, left=self._left())
        self._echo, self._echoed = asking.echo, ""
        target = self.exchange.target if number == 1 else asking.target
        async with self._extender.server(number).open(
            "POST", target, headers=self._extender.headers(number), body=asking.body
        ) as answer:
            if answer.status != 200 or not is_events(answer):
                if self.steps:
                    raise _failed(answer.status)
                await pass_unless_refused(self.exchange, answer, self.asked)
                self.relayed = True
                return
            if not self.steps:
                await self._output.begin(list(answer.raw_headers), self.plan.said)
            elif self._settings.extend == "wait":
                # It stands in the prompt; to the client it is part of the thought.
                await self._output.send([self._chunk({"reasoning_content": self._settings.prompts.wait})])
            self._streaming = True
            async for batch in batches(
                answer, limit=self._settings.limits.max_event_bytes, keep_alive=self._output.keep_alive
            ):
                payloads: list[bytes] = []
                for payload in batch:
                    self._take(payload, said, payloads)
                if payloads:
                    await self._output.send(payloads)
        if said.finish is None:
            raise unfinished()
        self.steps.append(said)
        self._current, self._streaming = None, False

    def _left(self) -> int | None:
        """Completion tokens that the client still allows."""
        if self.asked.max_tokens is None:
            return None
        return self.asked.max_tokens - self.generated

    def _take(self, payload: bytes, said: Said, payloads: list[bytes]) -> None:
        """Take an event: to the gate, to the record, and to the client as reasoning."""
        chunk = read(payload)
        if isinstance(chunk, OddChunk) and chunk.complaint:
            raise malformed("it sent something that is no chunk")
        if said.model is None:
            # One answer under one id, whoever says it.
            shared = head_of(payload)
            said.model = str(shared.get("model"))
            self._head = self._head or shared
            self._head["model"] = shared.get("model")
        if chunk.usage is not None:
            said.prompt_tokens = said.prompt_tokens if chunk.usage.prompt_tokens is None else chunk.usage.prompt_tokens
            said.counted = chunk.usage.completion_tokens
        choice = chunk.choice
        if choice is None:
            return
        reasoning, content = choice.reasoning, choice.content
        said.finish = choice.finish_reason or said.finish
        if self._echo:
            self._echoed += reasoning + content
            if self._echo != self._echoed and self._echo.startswith(self._echoed) and said.finish is None:
                return
            reasoning, content = "", self._echoed.removeprefix(self._echo)
            self._echo = ""
        tokens, right = fitted(reasoning + content, entries_of(choice.logprobs), finish=choice.finish_reason)
        if not right:
            self.notes["misaligned_logprobs"] = None
        for token in tokens:
            said.tokens += 1
            if self.plan.course == "audit":
                self._note(token, said)
            # An audited request goes on after the gate has ended.
            if self.stopped_at is None and not self._elsewhere:
                self._feed(token)
        said.reasoning.append(reasoning)
        said.content.append(content)
        if reasoning or content:
            logprobs = self._wanted(choice.logprobs) if self.asked.logprobs else None
            payloads.append(self._chunk({"reasoning_content": reasoning + content}, logprobs=logprobs))

    @property
    def _elsewhere(self) -> bool:
        """Whether the step under way is another model's, of which the threshold says nothing."""
        return self._settings.cascade is not None and bool(self.steps)

    def _wanted(self, logprobs: msgspec.Raw) -> Json:
        """The log-probabilities that the client asked for, no more."""
        return trimmed(decoded(logprobs), self.asked.top_logprobs) if logprobs else None

    def _note(self, token: Token, said: Said) -> None:
        try:
            bits = token.bits(self.plan.gate.signal)
        except LogprobsError:
            return
        if bits is not None:
            said.bits.append(bits)

    def _feed(self, token: Token) -> None:
        self.entries += token.top_logprobs is not None
        if token.top_logprobs is None and token.text:
            self.notes["missing_logprobs"] = None
        try:
            self._gate.meter.hear(token)
        except LogprobsError:
            self.notes["short_logprobs"] = None
            self._gate.meter.hear(Token(text=token.text))

    def _over(self) -> bool:
        """Let the gate decide on the step that has ended; whether its answer is the answer."""
        said = self.steps[-1]
        if self.stopped_at is None:
            # The end of the turn is counted by the upstream and is no token of the step.
            counted = None if said.counted is None else said.counted - (said.finish == "stop")
            decision = self._gate.end_step(tokens=counted)
            self.decisions.append(decision)
            if decision.action is Action.STOP and not self._cut_by_budget():
                self.stopped_at = len(self.steps)
        if self._cut_by_budget():
            self.out_of_budget = True
            return True
        audited = self.plan.course == "audit" and len(self.steps) < self.plan.gate.max_steps
        if (self.stopped_at is not None or self.decisions[-1].ends) and not audited:
            return True
        left = self._left()
        # With less than an answer left, another step would only be cut.
        self.out_of_budget = self.plan.spent(self.generated)
        return self.out_of_budget or (left is not None and left < 1)

    @property
    def left_early(self) -> int:
        """Streams of the upstream that were, or are being, left before their end."""
        return self._streaming

    def _cut_by_budget(self) -> bool:
        """Whether the last step was ended by the budget: it has no answer of its own."""
        return self.steps[-1].finish == "length" and self.plan.spent(self.generated)

    @property
    def generated(self) -> int:
        """Completion tokens so far, of all steps."""
        under_way = [] if self._current is None else [self._current]
        return sum(step.generated for step in (*self.steps, *under_way))

    @property
    def accepted(self) -> int:
        """The number of the step whose answer is the answer: the last, or the one before if a budget cut that."""
        cut = self.out_of_budget and self.steps[-1].finish == "length" and len(self.steps) > 1
        return len(self.steps) - cut

    async def _finish(self) -> None:
        last = self.steps[self.accepted - 1]
        answer = last.answer
        await self._output.send([self._chunk({"content": answer}), self._chunk({}, finish=last.finish)])
        if self.asked.include_usage or not self.asked.stream:
            await self._output.send([msgspec.json.encode(self._head | {"choices": [], "usage": self._usage()})])
        await self._output.end(header(self.report()))

    def _usage(self) -> dict[str, Json]:
        """All steps together; the prompt is the client's own, as it was read for the first."""
        prompt = self.steps[0].prompt_tokens or 0
        completion = self.generated
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "completion_tokens_details": {"reasoning_tokens": completion - self.steps[self.accepted - 1].generated},
        }

    def _chunk(
        self,
        delta: dict[str, Json],
        *,
        finish: str | None = None,
        logprobs: Json = None,
        said: dict[str, Json] | None = None,
    ) -> bytes:
        row: dict[str, Json] = {"index": 0, "delta": delta, "finish_reason": finish}
        if logprobs is not None:
            row["logprobs"] = logprobs
        chunk: dict[str, Json] = self._head | {"choices": [row]}
        if finish is not None:
            said = self.report()
        if said is not None:
            chunk["justenough"] = said
        return msgspec.json.encode(chunk)

    @property
    def id(self) -> str | None:
        """The answer's own."""
        found = self._head.get("id")
        return found if isinstance(found, str) else None

    def report(self) -> Report:
        """The `justenough` object of the answer."""
        tokens = self.generated
        answer = self.steps[self.accepted - 1] if self.steps else Said()
        said = report(
            self.plan,
            self.decisions[-1] if self.decisions else None,
            stopped=self.stopped_at is not None and self.plan.course == "gate",
            undecided="no_step",
            tokens=tokens,
            thought_tokens=tokens - answer.generated,
            probe_tokens=0,
            notes=list(self.notes),
            budget_spent=self.out_of_budget,
        )
        whole = all(step.counted is not None for step in self.steps)
        said["usage_source"] = "upstream" if whole else "received"
        said["steps"] = len(self.steps)
        if self.out_of_budget:
            said["step"] = self.accepted
        if self._settings.cascade is not None:
            # `tokens` and `usage` add up what two models have generated: here they stand apart.
            said["tokens_by_model"] = [{"model": step.model, "tokens": step.generated} for step in self.steps]
        if self.plan.course == "audit" and self.stopped_at is not None:
            said["would_stop_at"] = sum(step.generated for step in self.steps[: self.stopped_at])
        if self.asked.control.decisions:
            said["decisions"] = decided(self.decisions)
        return said


def _failed(status: int) -> Refused:
    return Refused(
        502,
        f"the upstream answered a later step with status {status}",
        code="continuation_failed",
        kind="upstream_error",
    )
