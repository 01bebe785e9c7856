"""Serves admitted requests: relays, observes, audits or gates them."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Final

from justenough.calibration.calibration import Calibration
from justenough.gateway.apis.ollama import OllamaUpstream
from justenough.gateway.budgets import GENERATES_NOTHING, Allowance, Budgets
from justenough.gateway.exchange import Exchange, Refused
from justenough.gateway.learn.learning import Learning
from justenough.gateway.metrics import Metrics
from justenough.gateway.place import collapsed, place_of
from justenough.gateway.planning import is_other_model, limit_member, plan_for, why_not_as_a_chat, with_thinking_limit
from justenough.gateway.request import CompletionRequest, read_request
from justenough.gateway.serve.metered import relay_metered
from justenough.gateway.serve.relay import RequestRefused, relay
from justenough.gateway.serve.ruled import ruled_or_gated
from justenough.gateway.serve.sequential import Sequence
from justenough.gateway.serve.streaming import Generation
from justenough.gateway.serve.underway import Request, UnderWay
from justenough.gateway.serve.work import Job
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.stream.reading import Reading
from justenough.gateway.upstream.capability import Capabilities, NotProbed
from justenough.gateway.upstream.client import Upstream
from justenough.gateway.upstream.formats import formats_for
from justenough.gateway.upstream.logprobs import LogprobsMemory
from justenough.gateway.upstream.overshoot import Overshoot, follow
from justenough.gateway.upstream.probing import Probing

log: Final = logging.getLogger("justenough.gateway")

_SETTLING_S: Final = 1.0
_READY_S: Final = 5.0
_LONG_BODY: Final = 1 << 20
"""Bytes from which a relayed body is passed on as it arrives."""


class Service:
    """One gateway: its settings, its upstream and what it has learned. An async context manager."""

    def __init__(
        self, settings: GatewaySettings, *, upstream: Upstream | None = None, probes_at_start: bool = True
    ) -> None:
        """`probes_at_start`: whether the upstream is probed before the first request, which may have the only key."""
        self.settings = settings
        self.upstream = upstream or Upstream(settings)
        self.cascade = None
        if settings.cascade is not None:
            second = replace(settings, upstream=settings.cascade.upstream, upstream_key=settings.cascade.key)
            self.cascade = Upstream(second)
        self.metrics = Metrics()
        self.overshoot = Overshoot()
        adopt = self._adopt if settings.apply_recalibration else None
        self.learning = Learning(settings, self.metrics, self.overshoot, adopt=adopt)
        self.budgets = Budgets(settings)
        self.reading = Reading()
        opened = settings.prompts.thought.opened
        self.probing = Probing(self.upstream, settings.calibrated_models, opened=opened, learned=self._learned)
        self.logprobs = LogprobsMemory()
        self.active = 0
        self.draining = False
        self.under_way = UnderWay()
        self.ready_clients = 0
        """Clients that wait for `readiness`."""
        self._probes_at_start = probes_at_start
        self._readiness: asyncio.Task[str] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._following: asyncio.Task[None] | None = None
        self._last_active = 0.0

    async def __aenter__(self) -> Service:
        await self.upstream.__aenter__()
        self.budgets.watch()
        if self.cascade is not None:
            await self.cascade.__aenter__()
        if self._probes_at_start and (self.settings.effective_mode != "off" or self.settings.budget is not None):
            self._spawn(self._probe_at_start())
        return self

    async def _probe_at_start(self) -> None:
        try:
            await self.probing.find(headers=[])
        except NotProbed as error:
            log.warning("the upstream was not probed, the first request will probe it: %s", error.__cause__ or error)

    async def __aexit__(self, *_: object) -> None:
        tasks = [task for task in (*self._background, self._following, self._readiness) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.probing.close()
        self.learning.close()
        # Cancelled requests still have to report the tokens that they used.
        loop = asyncio.get_running_loop()
        end = loop.time() + _SETTLING_S
        while self.active and loop.time() < end:
            await asyncio.sleep(0.01)
        self.budgets.close()
        if self.cascade is not None:
            await self.cascade.__aexit__()
        await self.upstream.__aexit__()

    def admits(self, exchange: Exchange) -> None:
        """Raise `Refused` if clients need a key and this one does not have it."""
        keys = self.settings.client_keys
        if not keys:
            return
        client_key = exchange.key.encode("latin-1")
        # All keys are compared, so the time does not reveal anything about them.
        if not sum(hmac.compare_digest(client_key, key.encode()) for key in keys):
            raise Refused(401, "this gateway needs a key of its own: Authorization: Bearer KEY", code="invalid_api_key")

    def _client(self, exchange: Exchange) -> str:
        """What distinguishes clients: their key if the gateway has keys, else their address."""
        return exchange.key if self.settings.client_keys else exchange.address

    async def readiness(self) -> str:
        """`ok`, or why no request can be served. Simultaneous calls share one request to the upstream."""
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

    @property
    def capabilities(self) -> Capabilities | None:
        """What is known of the upstream."""
        return self.probing.capabilities

    def _learned(self, capabilities: Capabilities) -> None:
        self.budgets.context = capabilities.context
        log.info("upstream: %s, continues a cut thought by %s", capabilities.engine, capabilities.chat or "no way")
        has_counter = capabilities.engine != "unknown"
        if self._following is None and has_counter and self.settings.effective_mode == "gate":
            every_s = self.settings.overshoot_every_s
            work = follow(self.overshoot, self.upstream, self._quiet_for, every_s=every_s)
            self._following = asyncio.ensure_future(work)

    def _quiet_for(self) -> float:
        """Seconds since the last activity of the upstream."""
        busy = self.active or self._background or self.upstream.open_requests
        return 0.0 if busy else asyncio.get_running_loop().time() - self._last_active

    def _adopt(self, calibration: Calibration) -> None:
        """Replace the calibration."""
        self.settings = replace(self.settings, calibration=calibration)
        self.learning.follow(calibration)
        self.metrics.recalibrations += 1

    async def serve(self, exchange: Exchange) -> None:
        """Answer an admitted request."""
        try:
            with self.under_way.of(exchange) as request:
                await self._serve(exchange, request)
        finally:
            self._last_active = asyncio.get_running_loop().time()

    async def _serve(self, exchange: Exchange, shown: Request) -> None:
        place = place_of(exchange.path, exchange.target) if exchange.method == "POST" else None
        if place is not None:
            await self._complete(exchange, read_request(place, await exchange.body(), exchange.headers), shown)
            return
        accounts, limit = self.budgets.accounts, self.settings.limits.max_request_tokens
        is_counted = exchange.method == "POST" and (accounts is not None or limit is not None)
        if is_counted and collapsed(exchange.path) not in GENERATES_NOTHING:
            raise Refused(403, f"tokens of {exchange.path[:200]!r} cannot be counted", code="not_counted")
        self.overshoot.uncounted += exchange.method == "POST"
        size = exchange.header(b"content-length") or "0"
        is_long = exchange.header(b"transfer-encoding") is not None or not size.isdigit() or int(size) > _LONG_BODY
        # Only a body that is held can be sent again when a connection turns out to be closed.
        body = exchange.chunks() if is_long else await exchange.body() or None
        await relay(exchange, self.upstream, body, own_headers=[(b"x-justenough", b"relayed; reason=path")])

    async def _complete(self, exchange: Exchange, request: CompletionRequest, shown: Request) -> None:
        chat = request.chat or request
        is_off = request.mode(self.settings) == "off"
        reason = "off" if is_off else request.relay_reason or self._unsuitable(exchange, chat)
        plan = None
        if reason is None:
            try:
                capabilities = await self.probing.find(headers=exchange.headers)
            except NotProbed:
                reason = "not_probed"
            else:
                reason = "model" if is_other_model(chat, capabilities, self.settings) else None
                if capabilities.engine == "llama.cpp" and request.place.target().startswith("/completions"):
                    # This path of llama.cpp has a protocol of its own.
                    reason = "path"
                client = self._client(exchange)
                plan = plan_for(chat, capabilities, self.settings, self.learning, client=client)
                if reason is None:
                    mode, headers = request.mode(self.settings), exchange.headers
                    asked = request, capabilities, plan, self.upstream
                    reason = await why_not_as_a_chat(*asked, mode=mode, headers=headers)
        if request.in_background and (self.budgets.accounts is not None or self.settings.limits.max_request_tokens):
            raise Refused(403, "a token budget allows no generation in the background", code="not_counted")
        with self.budgets.allow(request, self.budgets.account(exchange.key)) as allowance:
            if allowance.limit is not None:
                member = limit_member(request, self.capabilities)
                request = request.limited(allowance.limit // request.choices, member=member)
                # A rule spends tokens on probes too, beside those that the client limits.
                if plan is not None and (allowance.soft or self.settings.rule is not None):
                    plan = plan.within(allowance.limit, answer_tokens=self.settings.answer_tokens)
            own = request
            if allowance.soft and (reason is not None or plan is None or plan.course == "observe"):
                request = with_thinking_limit(request, self.capabilities, self.settings)
            if plan is None or reason is not None:
                await self._relay(exchange, request, reason or "off", allowance, own=own.body)
                return
            chat, upstream, api = request.chat or request, self.upstream, request.api
            formats = await formats_for(chat, capabilities, self.settings, upstream, headers=exchange.headers)
            if api is not None and api.asks_itself:
                target = request.place.target()
                upstream = OllamaUpstream(self.settings, upstream, target=target, fields=request.fields)
            job = Job(
                exchange=exchange,
                request=chat.for_engine(capabilities.engine),
                original=None if api is None else request,
                plan=plan,
                upstream=upstream,
                cascade=self.cascade,
                settings=self.settings,
                capabilities=capabilities,
                formats=formats,
            )
            try:
                await self._gate(job, allowance, shown)
            except RequestRefused as refused:
                shown.is_served_by(None)
                # What the gateway changed may be the reason, so the request is repeated as the client sent it.
                reason = "no_logprobs" if refused.names_logprobs else "refused"
                spent, unseen = allowance.used, allowance.unseen
                allowance.used = allowance.unseen = 0
                try:
                    await self._relay(exchange, own, reason, allowance, own=own.body)
                finally:
                    allowance.used, allowance.unseen = allowance.used + spent, allowance.unseen + unseen
                if exchange.status == 200 and refused.is_lasting:
                    self.logprobs.missing(chat, "refused", self._client(exchange))

    async def _gate(self, job: Job, allowance: Allowance, shown: Request) -> None:
        """Gate, audit or observe a request; raises `RequestRefused` before anything was sent."""
        is_sequential = job.plan.gate.shape == "sequential" and job.plan.course != "observe"
        work = Sequence(job) if is_sequential else ruled_or_gated(job, reading=self.reading)
        shown.is_served_by(work)
        allowance.counting = lambda: work.generated if work.meter is None else work.meter.tokens
        begun = self.logprobs.now()
        try:
            await work.run()
        except (Refused, asyncio.CancelledError) as end:
            if not work.generated and self.settings.needs_logprobs:
                self.logprobs.silent(job.request, end, since=begun, client=self._client(job.exchange))
            raise
        finally:
            meter = work.meter
            allowance.used = work.generated if meter is None else meter.tokens
            allowance.unseen = work.unseen if meter is None else meter.unseen
            if meter is not None or (is_sequential and self.cascade is not None):
                self.overshoot.uncounted += 1
            else:
                self.overshoot.received += work.generated
                self.overshoot.left += work.left_early
        if meter is not None:
            self.metrics.outcomes["relayed"] += 1
            return
        self.metrics.tokens += work.gated_tokens
        self.metrics.cascade_tokens += work.cascade_tokens
        self.metrics.probe_tokens += work.probe_tokens + work.earlier_probes
        self.learning.count(work, client=self._client(job.exchange))
        self.metrics.undecided.update(work.undecided)
        if work.entries:
            self.logprobs.given(job.request.model)
        elif work.gated_tokens and self.settings.needs_logprobs:
            self.logprobs.missing(job.request, "absent", self._client(job.exchange))
        # What a budget, a client or a failure ended did not run to its end and says nothing about the gate.
        if job.plan.course == "audit" and work.ended in (None, "stopped") and work.failure is None:
            self._spawn(self._audit(work))

    async def _audit(self, work: Generation | Sequence) -> None:
        await self.learning.audit_request(work)
        self._recalibrate()

    def _recalibrate(self) -> None:
        if self.learning.recalibration.due:
            self._spawn(self.learning.recalibration.refit())

    async def _relay(
        self, exchange: Exchange, request: CompletionRequest, reason: str, allowance: Allowance, *, own: bytes
    ) -> None:
        """Relay a request without a gate; `own`: the body to repeat where tokens count and the upstream refuses it."""
        self.overshoot.uncounted += 1
        self.metrics.outcomes["relayed"] += 1
        self.metrics.relayed[reason] += 1
        limit = "" if request.thinking_budget is None else f"; thinking_budget={request.thinking_budget}"
        own_headers = [(b"x-justenough", f"relayed; reason={reason}{limit}".encode())]
        if not allowance.counted:
            await relay(exchange, self.upstream, request.body, own_headers=own_headers)
            return
        # A stream's usage event tells its cost. The gateway asks for it and hides it from clients that did not.
        strip = request.api is None and request.stream and not request.include_usage
        body = request.body
        if strip:
            body = request.with_fields(stream_options=request.stream_options_with({"include_usage": True}))
        await relay_metered(
            exchange,
            self.upstream,
            body,
            own_headers=own_headers,
            allowance=allowance,
            limit=self.settings.limits.max_body_bytes,
            strip=strip,
            original_body=own,
        )

    def _unsuitable(self, exchange: Exchange, request: CompletionRequest) -> str | None:
        if self.settings.gate.shape == "sequential" and request.kind != "chat":
            return "shape"
        lacks = self.settings.needs_logprobs and self.logprobs.lacks(request.model, self._client(exchange))
        return "no_logprobs" if lacks else None

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        self._last_active = asyncio.get_running_loop().time()

    def label(self, body: bytes) -> None:
        """Take a client's label of an answer; raises `Refused`."""
        self.learning.label(body)
        self._recalibrate()
