"""The operator's settings: upstream, calibration, limits. Clients cannot exceed them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from justenough.budget import Per
from justenough.calibration.calibration import Calibration, require_names
from justenough.errors import InputError, SignalMismatch
from justenough.gate import GateSettings
from justenough.prompts import GENERAL, Prompts
from justenough.rules.live import LiveRule
from justenough.signal.signal import Signal
from justenough.signal.thought import ThoughtFormat, require_format, require_text

Mode = Literal["off", "observe", "gate"]

Extend = Literal["refine", "wait", "effort", "cascade"]
Scope = Literal["key", "all"]

OnHopeless = Literal["answer", "flag", "continue"]

_KEY: Final = re.compile(r"[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?")
_VERSION: Final = re.compile(r"/(v\d\w*|deployments/[^/]+)(/|$)")
MODES: Final[tuple[Mode, ...]] = ("off", "observe", "gate")
LEAST: Final = 16
"""Smallest useful number of tokens: a request is refused if fewer are left, and costs so many if its client leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits that protect the gateway from its clients and from a broken upstream."""

    max_body_bytes: int = 32 * 1024 * 1024
    """Of a request, and of a relayed answer whose usage is counted."""
    max_answer_bytes: int = 256 * 1024 * 1024
    """Of all events together that are assembled for a client without streaming."""
    max_header_bytes: int = 64 * 1024
    max_event_bytes: int = 16 * 1024 * 1024
    """Of one server-sent event."""
    max_concurrent: int = 512
    """Running requests; further requests get 503."""
    max_connections: int = 4096
    """Client connections, including idle ones; beyond this number one that waits for its client is closed."""
    max_steps: int = 16
    """Sequential steps of one request."""
    max_request_tokens: int | None = None
    """Completion tokens of one request, all steps and choices together."""
    receive_timeout_s: float = 60.0
    """For a client to send its headers, and again for its body."""
    send_timeout_s: float = 60.0
    """For a client that does not read, until it counts as gone."""
    connect_timeout_s: float = 10.0
    idle_timeout_s: float = 600.0
    """Longest silence of the upstream."""
    grace_s: float = 30.0
    """Time after SIGTERM in which open streams may end."""

    def __post_init__(self) -> None:
        options = {
            "max_body_bytes": "--max-body in bytes",
            "max_concurrent": "--max-concurrent",
            "max_request_tokens": "--max-request-tokens",
            "idle_timeout_s": "--timeout",
            "grace_s": "--grace",
        }
        for one in fields(self):
            value = getattr(self, one.name)
            may_be_0 = one.name == "grace_s"
            # With any other value no request could be answered.
            if value is not None and not (0 < value < math.inf or (may_be_0 and value == 0)):
                hint = "0 or more" if may_be_0 else "a finite number above 0"
                raise InputError(f"{options.get(one.name, one.name)} is {value}", hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSettings:
    """Completion tokens that clients may use."""

    tokens: int
    """Of each account."""
    per: Per = "minute"
    scope: Scope = "all"
    """`key`: one account per client key; `all`: one account for all clients."""
    file: Path | None = None
    """File of the accounts; None: they are lost with the process."""

    def __post_init__(self) -> None:
        if self.tokens < LEAST:
            reason = f"the budget is {self.tokens} tokens, so every request would be refused"
            raise InputError(reason, hint=f"--budget-tokens of at least {LEAST}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeSettings:
    """A second server with a stronger model, which takes the step after an unsure one."""

    upstream: str
    """Its base address."""
    model: str
    key: str | None = field(default=None, repr=False)
    """Key for this server; the client's key is never sent to it."""


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """All settings of a gateway. What every request needs is computed once."""

    upstream: str
    """Base address of an OpenAI-compatible server, with or without `/v1`, or with a path that takes its place."""
    calibration: Calibration | None = None
    mode: Mode | None = None
    """None: `gate` if the calibration has a threshold, else `observe`."""
    rule: LiveRule | None = None
    """Stops thoughts in place of a calibration's gate."""
    upstream_decides: bool = False
    """Whether the upstream is vLLM with the plugin, which gates inside the engine."""
    models: tuple[str, ...] = ()
    """Further names of the calibrated model at the upstream."""
    default_temperature: float | None = None
    """Temperature of requests without one; None: read from the upstream if it tells."""
    close: str | None = None
    """Text that closes a cut thought if the thought is part of the text; None: from `prompts`."""
    thought: ThoughtFormat | None = None
    """How the model marks its thought; None: as in the calibration's prompts, else as the probe or a tag shows."""
    answer_cue: str | None = None
    """Text with which the answer begins after a cut; None: from `prompts`."""
    extend: Extend = "refine"
    """How a sequential request continues: `refine` shows the attempt and asks the model to re-examine it, `wait`
    continues the thought, `effort` asks again with more reasoning effort, `cascade` asks another model once."""
    cascade: CascadeSettings | None = None
    on_hopeless: OnHopeless = "answer"
    """What follows where the calibration gives up: the model answers now (`answer`), the thought goes on and the report
    says so (`flag`), or nothing (`continue`)."""
    top_k: int = 20
    """Log-probabilities per token without a calibration."""
    audit_share: float = 0.02
    """Share of gated requests that run to their end, to measure what stopping saves and changes."""
    grader: str = "exact"
    """How the audit reads and compares answers."""
    apply_recalibration: bool = False
    """Whether a recalibrated threshold is applied at once, if its verdict is `separates`."""
    recalibrated: Path | None = None
    """File for the recalibrated calibration."""
    overshoot_every_s: float = 5.0
    """Interval between attempts to read the upstream's counter."""
    record: Path | None = None
    record_bytes: int = 256 * 1024 * 1024
    record_text: bool = True
    upstream_key: str | None = field(default=None, repr=False)
    """Key for the upstream; None: the client's key is passed on, unless there are `client_keys`."""
    client_keys: tuple[str, ...] = field(default=(), repr=False)
    """Keys for this gateway, never sent upstream; empty: everyone may use it."""
    budget: BudgetSettings | None = None
    answer_tokens: int = 256
    """Part of a request's token budget that is reserved for the answer, but at most half of it."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        hint = "for example http://127.0.0.1:8000"
        try:
            parts = urlsplit(self.upstream)
            port = parts.port
        except ValueError as error:
            raise InputError(f"{self.upstream!r} is no base address: {error}", hint=hint) from error
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or port == 0:
            raise InputError(f"{self.upstream!r} is no base address", hint=hint)
        if parts.path.rstrip("/").endswith("/completions"):
            hint = "the part before /chat/completions"
            raise InputError(f"{self.upstream!r} is no base address, but that of one kind of request", hint=hint)
        if parts.username is not None:
            hint = "give the key by JUSTENOUGH_UPSTREAM_KEY"
            raise InputError("the upstream's address contains a user name", hint=hint)
        keys = [*self.client_keys, self.upstream_key, None if self.cascade is None else self.cascade.key]
        for number, key in enumerate(keys, 1):
            if key is not None and not _KEY.fullmatch(key):
                hint = "no control characters, and no spaces or tabs around it"
                raise InputError(f"key {number} of {len(keys)} cannot be sent in a header", hint=hint)
        require_names(self.models)
        if self.thought is not None:
            require_format(self.thought)
        if self.default_temperature is not None and not 0.0 <= self.default_temperature < math.inf:
            raise InputError(f"the default temperature is {self.default_temperature!r}", hint="0 or more, often 0.6")
        require_text("the closing text", self.close or "")
        require_text("the answer cue", self.answer_cue or "")
        if not 0.0 <= self.audit_share <= 1.0:
            raise InputError(f"the audit share is {self.audit_share}, not a fraction", hint="0.02 is 2 %")
        if (self.extend == "cascade") != (self.cascade is not None):
            hint = "--cascade-upstream, --cascade-model"
            raise InputError("`cascade` needs a second model, and only `cascade` uses one", hint=hint)
        if self.extend in ("wait", "cascade") and self.calibration is not None and self.gate.shape != "sequential":
            raise InputError(
                f"`{self.extend}` needs whole steps, but the calibration is for {self.gate.shape} ones",
                hint="calibrate on traces of sequential steps",
            )
        if self.budget is not None and self.budget.scope == "key" and not self.client_keys:
            hint = "--client-key-file FILE, or --budget-scope all"
            raise InputError("a budget for each key needs client keys", hint=hint)
        for name, value in (("--answer-tokens", self.answer_tokens), ("--record-mib in bytes", self.record_bytes)):
            if value < 1:
                raise InputError(f"{name} is {value}", hint="a number above 0")
        if self.on_hopeless != "answer" and (self.calibration is None or self.calibration.give_up is None):
            hint = "justenough calibrate --threshold decider --decide every --give-up"
            raise InputError(f"`{self.on_hopeless}` is for a calibration that gives up", hint=hint)
        has_threshold = self.calibration is not None and self.calibration.threshold is not None
        if self.mode == "gate" and not has_threshold and self.rule is None:
            raise InputError("there is no threshold for the gate", hint="give --calibration FILE, or --mode observe")
        if self.rule is not None and (self.calibration is not None or self.extend in ("wait", "cascade")):
            hint = "give --rule or --calibration, and with --rule neither --extend wait nor --extend cascade"
            raise InputError("a rule stops one long thought, without a calibration", hint=hint)
        if self.upstream_decides and (not has_threshold or self.gate.shape != "streaming" or self.gate.flag_hopeless):
            hint = "--calibration FILE of streaming steps, without --on-hopeless flag"
            raise InputError("the upstream can only decide with a threshold for a long thought", hint=hint)
        if self.needs_logprobs and self.gate.signal.tail == "full" and self.gate.signal.top_k is None:
            raise SignalMismatch(
                "the calibration measures the whole vocabulary, of which a server sends only the most likely tokens",
                hint="calibrate on traces of this server, or use vLLM with the plugin and --upstream-decides",
            )
        if self.rule is not None and self.rule.needs_rows:
            hint = "a rule on answers, such as deer or answer-convergence"
            raise InputError(f"{self.rule.name} reads every token of the thought", hint=hint)

    @property
    def origin(self) -> str:
        """The upstream's address without a trailing `/v1`."""
        return self.upstream.rstrip("/").removesuffix("/v1")

    @cached_property
    def has_own_version(self) -> bool:
        """Whether the upstream's path has a version or a deployment of its own, such as `/api/v3`, instead of `/v1`."""
        path = urlsplit(self.upstream).path.rstrip("/")
        return not path.endswith("/v1") and _VERSION.search(path) is not None

    @property
    def needs_logprobs(self) -> bool:
        """Whether a gated request needs the upstream's log-probabilities."""
        return self.rule is None and not self.upstream_decides

    @property
    def effective_mode(self) -> Mode:
        """The mode for requests without a mode of their own."""
        if self.mode is not None:
            return self.mode
        has_threshold = self.calibration is not None and self.calibration.threshold is not None
        return "gate" if has_threshold or self.rule is not None else "observe"

    @cached_property
    def gate(self) -> GateSettings:
        """The gate's settings; without a calibration the gate only measures the paragraphs of a thought."""
        if self.calibration is not None:
            gate = GateSettings.of(self.calibration)
            if self.on_hopeless == "continue":
                return replace(gate, outlook=None, give_up=None)
            return replace(gate, flag_hopeless=self.on_hopeless == "flag")
        signal = Signal(top_k=self.top_k, splitter="paragraph")
        return GateSettings(signal=signal, shape="streaming", decide="every", max_steps=1_000_000)

    @cached_property
    def prompts(self) -> Prompts:
        """The calibration's prompts, else the general ones, which have an answer cue only for a rule.

        The operator's settings override.
        """
        stored = self.calibration.prompts if self.calibration is not None else None
        prompts = stored or (GENERAL if self.rule is not None else replace(GENERAL, answer=""))
        prompts = prompts if self.thought is None else prompts.with_thought(self.thought)
        return replace(
            prompts,
            close=prompts.close if self.close is None else self.close,
            answer=prompts.answer if self.answer_cue is None else self.answer_cue,
        )

    @property
    def prompt_warnings(self) -> tuple[str, ...]:
        """One sentence for each text that differs from the calibration's text."""
        stored = self.calibration.prompts if self.calibration is not None else None
        if stored is None:
            return ()
        used = self.prompts
        pairs = (("closing text", used.close, stored.close), ("answer cue", used.answer, stored.answer))
        return tuple(
            f"the {name} is {ours!r}, but the calibration used {theirs!r}: the answers may differ"
            for name, ours, theirs in pairs
            if ours != theirs
        )

    @property
    def cautions(self) -> list[str]:
        """Why this gate cannot save anything."""
        calibration = self.calibration
        if calibration is None:
            return []
        if calibration.never_stops is not None:
            return [calibration.never_stops]
        if calibration.shape != "sequential" or self.effective_mode != "gate":
            return []
        # A warning and not a refusal: more steps can be worth their tokens.
        return [
            "this calibration is for sequential steps. Applications that ask once get one step from the model and up"
            f" to {calibration.max_steps} from this gate, so it can only add tokens. To save tokens, collect with"
            " --shape streaming and calibrate again"
        ]

    @cached_property
    def calibrated_models(self) -> frozenset[str]:
        """Model names that may be gated; empty without a calibration."""
        return frozenset() if self.calibration is None else frozenset((self.calibration.model, *self.models))


def is_loopback(host: str) -> bool:
    """Whether `host` is an address that only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
