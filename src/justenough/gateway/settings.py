"""What the operator has decided: upstream, calibration, limits. Clients move within these, never beyond."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from secrets import token_bytes
from typing import Final, Literal
from urllib.parse import urlsplit

from justenough.budget import Per
from justenough.calibration.calibration import Calibration
from justenough.errors import InputError
from justenough.gate import GateSettings
from justenough.prompts import GENERAL, Prompts
from justenough.signal.signal import Signal

Mode = Literal["off", "observe", "gate"]

Extend = Literal["refine", "wait", "effort", "cascade"]
Scope = Literal["key", "all"]

MODES: Final[tuple[Mode, ...]] = ("off", "observe", "gate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what a client, or a broken upstream, can make the gateway do."""

    max_body_bytes: int = 32 * 1024 * 1024
    """Of a request, and of a relayed answer whose usage is to be counted."""
    max_answer_bytes: int = 256 * 1024 * 1024
    """Of an answer's events, where they are put together for a client that does not stream."""
    max_header_bytes: int = 64 * 1024
    max_event_bytes: int = 16 * 1024 * 1024
    """Of one server-sent event."""
    max_concurrent: int = 512
    """Requests under way; more are answered 503."""
    max_connections: int = 4096
    """Client connections, idle ones included; beyond it the one that is idle for the longest time is closed."""
    max_steps: int = 16
    """Sequential steps that a request may ask for."""
    max_request_tokens: int | None = None
    """Completion tokens of one request, all its steps and choices together."""
    receive_timeout_s: float = 60.0
    """For a client to send its headers, and again its body."""
    send_timeout_s: float = 60.0
    """For a client to read on, before it counts as gone."""
    connect_timeout_s: float = 10.0
    idle_timeout_s: float = 600.0
    """Longest silence of the upstream."""
    grace_s: float = 30.0
    """After SIGTERM, for open streams to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSettings:
    """Completion tokens that clients may have generated."""

    tokens: int
    """Each account's."""
    per: Per = "minute"
    scope: Scope = "all"
    """`key`: an account for each client key; `all`: one for all clients together."""
    file: Path | None = None
    """Where the accounts outlive the process; None: in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeSettings:
    """A second server, whose stronger model takes the step after an unsure one."""

    upstream: str
    """Its base address."""
    model: str
    key: str | None = field(default=None, repr=False)
    """Sent to it; the client's own never is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """All that shapes a gateway."""

    upstream: str
    """Base address of an OpenAI-compatible server, with or without `/v1`."""
    calibration: Calibration | None = None
    mode: Mode | None = None
    """None: `gate` where the calibration has a threshold, else `observe`."""
    models: tuple[str, ...] = ()
    """Names under which the upstream serves the calibrated model, beside the calibration's own."""
    default_temperature: float | None = None
    """What the upstream samples with where a request names none; None: asked of the upstream where it tells."""
    close: str | None = None
    """Ends a thought that the gate has stopped, where the thought is part of the text; None: as in `prompts`."""
    answer_cue: str | None = None
    """Begins the answer then; None: as in `prompts`."""
    extend: Extend = "refine"
    """How a sequential request goes on: `refine` shows the attempt and asks to re-examine it, `wait` continues the
    thought, `effort` asks anew with more reasoning effort, `cascade` asks another model, once."""
    cascade: CascadeSettings | None = None
    top_k: int = 20
    """Log-probabilities asked for where there is no calibration."""
    audit_share: float = 0.02
    """Share of gated traffic that runs to its end, to measure what stopping saves and changes."""
    audit_secret: bytes = field(default_factory=lambda: token_bytes(16), repr=False)
    """Decides, with a request's bytes, whether it is audited; the same for the whole life of a gateway."""
    grader: str = "exact"
    """How the audit reads and compares answers."""
    apply_recalibration: bool = False
    """Whether a threshold fitted in the background is gated by at once, where its verdict is `separates`."""
    recalibrated: Path | None = None
    """Where the calibration fitted in the background is written, whole, each time."""
    overshoot_every_s: float = 5.0
    """Between two looks at whether the upstream's counter can be read."""
    record: Path | None = None
    record_bytes: int = 256 * 1024 * 1024
    record_text: bool = True
    upstream_key: str | None = field(default=None, repr=False)
    """Sent upstream in place of the client's; None: the client's is passed through where there are no `client_keys`."""
    client_keys: tuple[str, ...] = field(default=(), repr=False)
    """Keys that clients must show one of, never sent upstream; empty: anyone who reaches the port."""
    budget: BudgetSettings | None = None
    answer_tokens: int = 256
    """Of a request's token budget, kept for its answer, but never more than half."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        parts = urlsplit(self.upstream)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise InputError(f"{self.upstream!r} is no base address", hint="for example http://127.0.0.1:8000")
        if parts.username is not None:
            raise InputError(
                "the upstream's address carries a user name", hint="give the key by JUSTENOUGH_UPSTREAM_KEY"
            )
        if not 0.0 <= self.audit_share <= 1.0:
            raise InputError(f"audit share {self.audit_share} is no fraction", hint="0.02 is 2 %")
        if (self.extend == "cascade") != (self.cascade is not None):
            raise InputError(
                "`cascade` needs a second model, and only it does", hint="--cascade-upstream, --cascade-model"
            )
        if self.extend in ("wait", "cascade") and self.calibration is not None and self.gate.shape != "sequential":
            raise InputError(
                f"`{self.extend}` extends whole steps, the calibration is for {self.gate.shape} ones",
                hint="calibrate on traces of sequential steps",
            )
        if self.budget is not None and self.budget.scope == "key" and not self.client_keys:
            raise InputError("a budget for each key needs keys", hint="--client-key-file FILE, or --budget-scope all")
        most = self.limits.max_request_tokens
        if self.answer_tokens < 1 or (most is not None and most < 1):
            raise InputError(
                f"{self.answer_tokens} tokens for an answer, {most} for a request", hint="at least 1 of each"
            )
        if self.mode == "gate" and (self.calibration is None or self.calibration.threshold is None):
            raise InputError("there is no threshold to gate by", hint="give --calibration FILE, or --mode observe")

    @property
    def origin(self) -> str:
        """The upstream's address without a trailing `/v1`."""
        return self.upstream.rstrip("/").removesuffix("/v1")

    @property
    def effective_mode(self) -> Mode:
        """What is done with a request that says nothing."""
        if self.mode is not None:
            return self.mode
        return "gate" if self.calibration is not None and self.calibration.threshold is not None else "observe"

    @property
    def gate(self) -> GateSettings:
        """The gate's settings; without a calibration one that only measures the paragraphs of a thought."""
        if self.calibration is not None:
            return GateSettings.of(self.calibration)
        signal = Signal(top_k=self.top_k, splitter="paragraph")
        return GateSettings(signal=signal, shape="streaming", decide="every", max_steps=1_000_000)

    @property
    def prompts(self) -> Prompts:
        """What the model is asked: the calibration's texts, else the general ones without an answer cue; `close` and
        `answer_cue` stand in their place where they are given."""
        stored = self.calibration.prompts if self.calibration is not None else None
        prompts = stored or replace(GENERAL, answer="")
        return replace(
            prompts,
            close=prompts.close if self.close is None else self.close,
            answer=prompts.answer if self.answer_cue is None else self.answer_cue,
        )

    @property
    def prompt_warnings(self) -> tuple[str, ...]:
        """One sentence for each text that differs from the one that the threshold was calibrated with."""
        stored = self.calibration.prompts if self.calibration is not None else None
        if stored is None:
            return ()
        used = self.prompts
        pairs = (("closing text", used.close, stored.close), ("answer cue", used.answer, stored.answer))
        return tuple(
            f"the {name} is {mine!r}, the calibration was made with {theirs!r}: the answers may differ"
            for name, mine, theirs in pairs
            if mine != theirs
        )

    @property
    def calibrated_models(self) -> frozenset[str]:
        """Model names that may be gated; empty without a calibration."""
        return frozenset() if self.calibration is None else frozenset((self.calibration.model, *self.models))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
