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
from justenough.gateway.upstream.logprobs import LogprobsMemory
from justenough.gateway.upstream.overshoot import Overshoot, follow
from justenough.gateway.upstream.refusal import LogprobsRefused

log: Final = logging.getLogger("justenough.gateway")

_SETTLING_S: Final = 1.0
_READY_S: Final = 5.0
_QUICK_PROBES: Final = 3
"""Probes without a conclusive answer before there are pauses between them."""
_PATIENT_PROBES: Final = 6
"""Probes without a conclusive answer before the upstream counts, for a while, as one that continues no chat."""
_LONGEST_PAUSE_S: Final = 60.0


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
        self.logprobs = LogprobsMemory()
        self.active = 0
        self.draining = False
        self._probing = asyncio.Lock()
        self._failed_probes = 0
        self._probe_at = 0.0
        """On the loop's clock: when the upstream may be probed (again)."""
        self._readiness: asyncio.Task[str] | None = None
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
        tasks = [task for task in (*self._background, self._following, self._readiness) if task is not None]
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
        """`ok`, or why no request can be served. All who ask at a time share one request to the upstream."""
        if self._readiness is None or self._readiness.done():
            self._readiness = asyncio.ensure_future(self._ask_readiness())
        return await asyncio.shield(self._readiness)

    async def _ask_readiness(self) -> str:
        try:
            async with asyncio.timeout(_READY_S), self.upstream.open("GET", "/v1/models", headers=[]) as answer:
                return "ok" if answer.status < 500 else f"upstream answers {answer.status}"
        except TimeoutError:
            return f"upstream does not answer within {_READY_S:g} s"
        except Refused as refused:
            return refused.message

    async def known(self, *, headers: RawHeaders) -> Capabilities:
        """What the upstream can do. It is asked until its answers are conclusive; raises `Refused`, `NotProbed`."""
        if self.capabilities is not None and self.capabilities.conclusive:
            return self.capabilities
        async with self._probing:
            known, now = self.capabilities, asyncio.get_running_loop().time()
            if known is not None and (known.conclusive or now < self._probe_at):
                return known
            if now < self._probe_at:
                raise NotProbed(0)
            known = await self._probed(headers, now)
            self.budgets.context = known.context
            log.info("upstream: %s, continues by %s", known.engine, known.chat)
            if self._following is None and known.engine != "unknown" and self.settings.effective_mode == "gate":
                every_s = self.settings.overshoot_every_s
                work = follow(self.overshoot, self.upstream, self._quiet_for, every_s=every_s)
                self._following = asyncio.ensure_future(work)
            self.capabilities = known
            return known

    async def _probed(self, headers: RawHeaders, now: float) -> Capabilities:
        try:
            known = await probe(self.upstream, headers=headers, settle=self._failed_probes >= _PATIENT_PROBES)
        except NotProbed:
            self._failed_probes += 1
            if self._failed_probes > _QUICK_PROBES:
                self._probe_at = now + min(2.0 ** (self._failed_probes - _QUICK_PROBES), _LONGEST_PAUSE_S)
            raise
        if not known.conclusive:
            self._probe_at = now + _LONGEST_PAUSE_S
        return known

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
            await relay(exchange, self.upstream, exchange.chunks(), own_headers=said)
        else:
            await exchange.body()
            await relay(exchange, self.upstream, None, own_headers=said)

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
                    self.logprobs.missing(asked, "refused")

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
        self._learn_of_logprobs(asked, tokens=watch.tokens, entries=watch.entries)
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
        self._learn_of_logprobs(asked, tokens=tokens, entries=sequence.entries)
        if plan.course == "audit" and not sequence.out_of_budget:
            self.learning.stepwise(asked, sequence)
            self._recalibrate()

    async def _relayed(self, exchange: Exchange, asked: Asked, reason: str, allowance: Allowance) -> None:
        self.overshoot.uncounted += 1
        self.metrics.outcomes["relayed"] += 1
        self.metrics.relayed[reason] += 1
        said = [(b"x-justenough", f"relayed; reason={reason}".encode())]
        if not allowance.counted:
            await relay(exchange, self.upstream, asked.body, own_headers=said)
            return
        # A stream says in the end what it has cost, whether its client wants to know or not.
        strip = asked.stream and not asked.include_usage
        body = asked.with_fields(stream_options=asked.asking_for_usage()) if strip else asked.body
        most = self.settings.limits.max_body_bytes
        await relay_metered(exchange, self.upstream, body, own_headers=said, allowance=allowance, limit=most, strip=strip)

    def _unsuitable(self, asked: Asked) -> str | None:
        settings = self.settings
        if settings.gate.shape == "sequential" and asked.kind != "chat":
            return "shape"
        return "no_logprobs" if self.logprobs.lacks(asked.model) else None

    def _learn_of_logprobs(self, asked: Asked, *, tokens: int, entries: int) -> None:
        if entries:
            self.logprobs.given(asked.model)
        elif tokens:
            self.logprobs.missing(asked, "absent")

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
