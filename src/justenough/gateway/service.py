"""What happens to a request that was admitted: relayed, observed, audited or gated."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Final

import msgspec

from justenough.calibration.calibration import Calibration
from justenough.gateway.budgets import GENERATES_NOTHING, Allowance, Budgets
from justenough.gateway.exchange import Exchange, RawHeaders, Refused
from justenough.gateway.learn.learning import Ended, Learning
from justenough.gateway.metrics import Metrics
from justenough.gateway.plan import Plan
from justenough.gateway.planning import other_model, planned
from justenough.gateway.request import KINDS, LENGTHS_OF_RESPONSES, RESPONSES, Asked, read_asked, read_responses
from justenough.gateway.serve.metered import relay_metered
from justenough.gateway.serve.relay import relay
from justenough.gateway.serve.sequential import Sequence
from justenough.gateway.serve.streaming import Generation, Outcome
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.status import gauges, status
from justenough.gateway.stream.reading import Reading
from justenough.gateway.stream.record import Steps
from justenough.gateway.upstream.capability import Capabilities, NotProbed, probe
from justenough.gateway.upstream.client import Upstream
from justenough.gateway.upstream.overshoot import Overshoot, follow
from justenough.gateway.upstream.refusal import LogprobsRefused

log: Final = logging.getLogger("justenough.gateway")

_SETTLING_S: Final = 1.0
_MOST_MODELS: Final = 1_000


class Service:
    """One gateway: settings, upstream and what it has learnt. An async context manager."""

    def __init__(self, settings: GatewaySettings, *, upstream: Upstream | None = None) -> None:
        self.settings = settings
        self.upstream = upstream or Upstream(settings)
        self.cascade = None
        if settings.cascade is not None:
            second = replace(settings, upstream=settings.cascade.upstream, upstream_key=settings.cascade.key)
            self.cascade = Upstream(second)
        self.metrics = Metrics()
        self.overshoot = Overshoot()
        self.learning = Learning(
            settings,
            self.upstream,
            self.metrics,
            self.overshoot,
            adopt=self._adopt if settings.apply_recalibration else None,
        )
        self.budgets = Budgets(settings)
        self.reading = Reading()
        self.capabilities: Capabilities | None = None
        self.without_logprobs: dict[str, str] = {}
        """Models that gave none, and how that showed."""
        self.active = 0
        self.draining = False
        self._probing = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        self._following: asyncio.Task[None] | None = None
        self._worked_at = 0.0
        """When something was last done, on the loop's clock."""

    async def __aenter__(self) -> Service:
        await self.upstream.__aenter__()
        self.budgets.watch()
        if self.cascade is not None:
            await self.cascade.__aenter__()
        if self.settings.effective_mode != "off" or self.settings.budget is not None:
            try:
                await self.known(headers=[])
            except Refused as refused:
                log.warning(
                    "the upstream was not probed: %s; the first request that can be gated will", refused.message
                )
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._background, *([self._following] if self._following is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.learning.close()
        # Requests that are being broken off have yet to say what they have used.
        until = asyncio.get_running_loop().time() + _SETTLING_S
        while self.active and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.01)
        self.budgets.close()
        if self.cascade is not None:
            await self.cascade.__aexit__()
        await self.upstream.__aexit__()

    def admits(self, exchange: Exchange) -> None:
        """Raise `Refused` where clients must show a key and this one has not."""
        keys = self.settings.client_keys
        if not keys:
            return
        shown = exchange.key.encode("latin-1")
        # All are compared, so that the time taken does not say which one was shown.
        if not sum(hmac.compare_digest(shown, key.encode()) for key in keys):
            raise Refused(401, "this gateway wants a key of its own", code="invalid_api_key")

    async def readiness(self) -> str:
        """`ok`, or why no request can be served."""
        try:
            async with self.upstream.open("GET", "/v1/models", headers=[]) as answer:
                return "ok" if answer.status < 500 else f"upstream answers {answer.status}"
        except Refused as refused:
            return refused.message

    async def known(self, *, headers: RawHeaders) -> Capabilities:
        """What the upstream can do, asked once."""
        if self.capabilities is None:
            async with self._probing:
                if self.capabilities is None:
                    self.capabilities = await probe(self.upstream, headers=headers)
                    self.budgets.context = self.capabilities.context
                    log.info("upstream: %s, continues by %s", self.capabilities.engine, self.capabilities.chat)
                    if self.capabilities.engine != "unknown" and self.settings.effective_mode == "gate":
                        every_s = self.settings.overshoot_every_s
                        work = follow(self.overshoot, self.upstream, self._quiet_for, every_s=every_s)
                        self._following = asyncio.ensure_future(work)
        return self.capabilities

    def _quiet_for(self) -> float:
        """Seconds for which nothing has been under way upstream."""
        busy = self.active or self._background or self.upstream.open_requests
        return 0.0 if busy else asyncio.get_running_loop().time() - self._worked_at

    def _adopt(self, calibration: Calibration) -> None:
        """Gate by another calibration from now on."""
        self.settings = replace(self.settings, calibration=calibration)
        self.learning.follow(self.settings)
        self.metrics.recalibrations += 1

    async def serve(self, exchange: Exchange) -> None:
        """Answer an admitted request."""
        try:
            await self._serve(exchange)
        finally:
            self._worked_at = asyncio.get_running_loop().time()

    async def _serve(self, exchange: Exchange) -> None:
        if exchange.method == "POST" and exchange.path in KINDS:
            body = await exchange.body()
            await self._complete(exchange, read_asked(exchange.path, body, exchange.headers))
            return
        accounts, most = self.budgets.accounts, self.settings.limits.max_request_tokens
        if exchange.method == "POST" and (accounts is not None or most is not None):
            if exchange.path == RESPONSES:
                await self._responded(exchange)
                return
            if accounts is not None and exchange.path not in GENERATES_NOTHING:
                raise Refused(403, f"tokens of {exchange.path[:200]!r} cannot be counted", code="not_counted")
        self.overshoot.uncounted += exchange.method == "POST"
        said: RawHeaders = [(b"x-justenough", b"relayed; reason=path")]
        if exchange.header(b"content-length") not in (None, "0") or exchange.header(b"transfer-encoding"):
            await relay(exchange, self.upstream, exchange.chunks(), said=said)
        else:
            await exchange.body()
            await relay(exchange, self.upstream, None, said=said)

    async def _complete(self, exchange: Exchange, asked: Asked) -> None:
        reason = "off" if asked.mode(self.settings) == "off" else asked.relayed or self._unsuitable(asked)
        plan = None
        if reason is None:
            try:
                capabilities = await self.known(headers=exchange.headers)
            except NotProbed:
                reason = "not_probed"
            else:
                reason = other_model(asked, capabilities, self.settings)
                plan = planned(asked, capabilities, self.settings, self.learning)
        account = self.budgets.account(exchange.key)
        with self.budgets.allow(asked, account) as allowance:
            if allowance.limit is not None:
                asked = asked.bounded(allowance.limit // asked.choices, member=self._bounding_member(asked))
                if plan is not None and allowance.soft:
                    plan = plan.within(allowance.limit, answer_tokens=self.settings.answer_tokens)
            if plan is None or reason is not None:
                await self._relayed(exchange, asked, reason or "off", allowance)
                return
            try:
                if plan.gate.shape == "sequential" and plan.course != "observe":
                    await self._stepwise(exchange, asked, plan, capabilities, allowance)
                else:
                    await self._streamed(exchange, asked, plan, capabilities, allowance)
            except LogprobsRefused:
                await self._relayed(exchange, asked, "no_logprobs", allowance)
                # Only if it is taken without: otherwise the request itself was wrong.
                if exchange.status == 200:
                    self._no_logprobs(asked, "refused")

    async def _responded(self, exchange: Exchange) -> None:
        """OpenAI's other protocol: never gated, but its tokens count."""
        request = read_responses(await exchange.body())
        with self.budgets.allow(request, self.budgets.account(exchange.key)) as allowance:
            bounded = request.bounded(allowance.limit or 1, member=LENGTHS_OF_RESPONSES[0])
            await self._relayed(exchange, bounded, "path", allowance)

    def _bounding_member(self, asked: Asked) -> str:
        """Where to say how long an answer may be: OpenAI's own reasoning models take only the newer name."""
        known = self.capabilities
        ours = known is not None and known.engine != "unknown"
        return "max_tokens" if ours or asked.kind == "completion" else "max_completion_tokens"

    async def _streamed(
        self, exchange: Exchange, asked: Asked, plan: Plan, capabilities: Capabilities, allowance: Allowance
    ) -> None:
        generation = Generation(
            exchange,
            asked,
            plan,
            upstream=self.upstream,
            settings=self.settings,
            capabilities=capabilities,
            reading=self.reading,
            record=Steps(plan.gate) if plan.course == "audit" else None,
        )
        allowance.counting = lambda: generation.generated
        try:
            outcome = await generation.run()
        finally:
            allowance.used = generation.generated
            self.overshoot.received += generation.generated
            self.overshoot.left += generation.left_early
        if outcome.relayed:
            self.metrics.outcomes["relayed"] += 1
            return
        watch = outcome.watch
        self.metrics.tokens += watch.tokens
        self.metrics.probe_tokens += outcome.probe_tokens
        bits = watch.first_entropy if watch.thought or plan.gate.shape == "sequential" else None
        done: Ended | None = "budget" if outcome.out_of_budget else "stopped" if outcome.cut else None
        self.learning.done(plan, done=done, bits=bits, answer=generation.id)
        self.metrics.undecided.update(generation.undecided)
        if watch.tokens and not watch.entries:
            self._no_logprobs(asked, "absent")
        # What its budget has ended did not run to its end, and tells nothing of the gate.
        if plan.course == "audit" and not outcome.out_of_budget:
            self._spawn(self._audited(asked, generation, outcome, capabilities))

    async def _audited(
        self, asked: Asked, generation: Generation, outcome: Outcome, capabilities: Capabilities
    ) -> None:
        await self.learning.streamed(asked, generation, outcome, capabilities)
        self._recalibrate()

    def _recalibrate(self) -> None:
        if self.learning.recalibration.due:
            self._spawn(self.learning.recalibration.refit())

    async def _stepwise(
        self, exchange: Exchange, asked: Asked, plan: Plan, capabilities: Capabilities, allowance: Allowance
    ) -> None:
        sequence = Sequence(
            exchange,
            asked,
            plan,
            upstream=self.upstream,
            cascade=self.cascade,
            settings=self.settings,
            capabilities=capabilities,
        )
        allowance.counting = lambda: sequence.generated
        try:
            await sequence.run()
        finally:
            allowance.used = sequence.generated
            if self.cascade is None:
                self.overshoot.received += sequence.generated
                self.overshoot.left += sequence.left_early
            else:
                self.overshoot.uncounted += 1
        if sequence.relayed:
            self.metrics.outcomes["relayed"] += 1
            return
        tokens = sequence.generated
        elsewhere = sum(step.generated for step in sequence.steps[1:]) if self.cascade is not None else 0
        self.metrics.tokens += tokens - elsewhere
        self.metrics.cascade_tokens += elsewhere
        done: Ended | None = (
            "budget" if sequence.out_of_budget else "stopped" if sequence.stopped_at is not None else None
        )
        self.learning.done(plan, done=done, bits=sequence.decisions[0].entropy, answer=sequence.id)
        self.metrics.undecided.update(list(sequence.notes))
        if tokens and not sequence.entries:
            self._no_logprobs(asked, "absent")
        if plan.course == "audit" and not sequence.out_of_budget:
            self.learning.stepwise(asked, sequence)
            self._recalibrate()

    async def _relayed(self, exchange: Exchange, asked: Asked, reason: str, allowance: Allowance) -> None:
        self.overshoot.uncounted += 1
        self.metrics.outcomes["relayed"] += 1
        self.metrics.relayed[reason] += 1
        said = [(b"x-justenough", f"relayed; reason={reason}".encode())]
        if not allowance.counted:
            await relay(exchange, self.upstream, asked.body, said=said)
            return
        # A stream says in the end what it has cost, whether its client wants to know or not.
        strip = asked.stream and not asked.include_usage
        body = asked.with_fields(stream_options=asked.asking_for_usage()) if strip else asked.body
        most = self.settings.limits.max_body_bytes
        await relay_metered(exchange, self.upstream, body, said=said, allowance=allowance, limit=most, strip=strip)

    def _unsuitable(self, asked: Asked) -> str | None:
        settings = self.settings
        if settings.gate.shape == "sequential" and asked.kind != "chat":
            return "shape"
        return "no_logprobs" if (asked.model or "") in self.without_logprobs else None

    def _no_logprobs(self, asked: Asked, how: str) -> None:
        # Names come from clients: neither may they fill the memory nor write lines of their own into the log.
        if len(self.without_logprobs) < _MOST_MODELS:
            log.warning("the upstream gives no log-probabilities for %r (%s): relayed from now on", asked.model, how)
            self.without_logprobs[asked.model or ""] = how

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        self._worked_at = asyncio.get_running_loop().time()

    async def own(self, name: str, exchange: Exchange) -> None:
        """Answer one of our own paths; raises `Refused`."""
        if name == "metrics":
            page = self.metrics.text(gauges(self))
            await exchange.answer(200, page, content_type="text/plain; version=0.0.4; charset=utf-8")
        elif name == "feedback":
            self.admits(exchange)
            self.learning.label(await exchange.body())
            self._recalibrate()
            await exchange.answer(200, msgspec.json.encode(self.learning.feedback.summary()))
        else:
            await exchange.answer(200, msgspec.json.encode(status(self)))
