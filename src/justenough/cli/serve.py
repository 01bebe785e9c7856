"""`justenough serve`.

Point any OpenAI client at http://HOST:PORT/v1. Without --calibration the gateway stops nothing; it relays and measures.
The key for the upstream is in the variable JUSTENOUGH_UPSTREAM_KEY. Without it the gateway passes the client's key on,
unless that is a key for the gateway (--client-key-file). The key for the second server of a cascade is in
JUSTENOUGH_CASCADE_KEY; the client's key is never sent there.

Each option can also be in the TOML file of --config (budget-tokens = 9000) or in a variable (JUSTENOUGH_BUDGET_TOKENS).
The command line wins over the environment, and the environment over the file. A flag is true or false. An option that
can be repeated is a list in the file; its variable has the values with spaces between them. Keys are never options.

Ctrl-C and SIGTERM stop the gateway after open streams have ended, at most --grace seconds later.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import socket
from asyncio import CancelledError
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from justenough.cli.arguments import add_flag, add_option, add_rule, add_thought, live_rule
from justenough.cli.configuration import configured, without_defaults
from justenough.cli.paths import CALIBRATION, LEDGER, RECORD, input_file
from justenough.cli.terminal import say
from justenough.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from justenough.gateway.settings import GatewaySettings

UPSTREAM_KEY = "JUSTENOUGH_UPSTREAM_KEY"
CASCADE_KEY = "JUSTENOUGH_CASCADE_KEY"
_MOST_KEY_BYTES = 1_000_000


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    config = 'TOML file with options, for example: upstream = "http://127.0.0.1:8000"'
    add_option(parser, "--config", type=input_file, metavar="FILE", help=config)
    add_options(parser)
    without_defaults(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that can also come from a file and from the environment."""
    option, flag = add_option, add_flag
    option(parser, "--upstream", metavar="URL", help="address of the OpenAI-compatible server")
    option(parser, "--calibration", type=input_file, metavar="FILE", help="the calibration of the gate")
    add_rule(parser)
    mode = "the most that the gateway does (default: gate with a threshold, otherwise observe)"
    option(parser, "--mode", choices=("off", "observe", "gate"), help=mode)
    option(parser, "--host", default="127.0.0.1", metavar="HOST", help="address to listen on")
    option(parser, "--port", default=8080, metavar="PORT", help="port to listen on; 0 chooses a free port")
    flag(parser, "--allow-remote", help="allow a --host that other machines can reach")
    playground = "serve a page at / to ask and to watch (default: only if no other machine can reach it)"
    parser.add_argument("--playground", action=argparse.BooleanOptionalAction, help=playground)
    origin = "allow web pages of this origin to use the gateway, for example https://chat.example.com"
    parser.add_argument("--allow-origin", action="append", default=[], metavar="ORIGIN", help=origin)
    option(
        parser,
        "--client-key-file",
        type=input_file,
        metavar="FILE",
        help="keys that clients must send, one on each line",
    )
    record = "append traces of audited requests to this JSONL file, to calibrate on them"
    option(parser, "--record", type=RECORD, metavar="FILE", help=record)
    option(parser, "--record-mib", default=256, metavar="MIB", help="largest size of the record")
    flag(parser, "--record-no-text", help="record no text, and answers as digests only")

    group = parser.add_argument_group("the model")
    serves = "name of the calibrated model on the upstream"
    flag(group, "--upstream-decides", help="vLLM with the plugin decides upstream, without log-probabilities")
    group.add_argument("--serves", action="append", default=[], metavar="NAME", help=serves)
    temperature = "temperature of requests that name none, as on the upstream"
    option(group, "--default-temperature", type=float, metavar="T", help=temperature)
    extend = "how a sequential run continues after a step (default: refine, with a warning that this adds tokens)"
    option(group, "--extend", choices=("refine", "wait", "effort", "cascade"), help=extend)
    hopeless = (
        "where a calibration with --give-up expects a wrong answer: let the model answer now, think on and report it,"
        " or think on"
    )
    option(group, "--on-hopeless", choices=("answer", "flag", "continue"), default="answer", help=hopeless)
    option(group, "--cascade-upstream", metavar="URL", help="address of the second server of a cascade")
    option(group, "--cascade-model", metavar="NAME", help="model on the second server")
    add_thought(group, default="the calibration's, else as the chat template or an opening tag shows")
    option(group, "--close", metavar="TEXT", help="ends a stopped thought (default: the calibration's)")
    option(group, "--answer-cue", metavar="TEXT", help="begins the answer after it (default: the calibration's)")
    option(group, "--grader", metavar="NAME", default="exact", help="how answers of audited requests are compared")
    option(group, "--audit-share", metavar="P", default=0.02, help="share of requests that run to the end")

    group = parser.add_argument_group("limits")
    limit = "completion tokens of one request (default: the limit of the request)"
    option(group, "--max-request-tokens", type=int, metavar="N", help=limit)
    option(group, "--max-concurrent", default=512, metavar="N", help="requests at the same time")
    option(group, "--max-body", default=32, metavar="MIB", help="largest request body")
    option(group, "--timeout", type=float, default=600, metavar="S", help="longest silence of the upstream")
    option(group, "--grace", type=float, default=30, metavar="S", help="time for open streams after SIGTERM")

    group = parser.add_argument_group("token budgets")
    option(group, "--budget-tokens", type=int, metavar="N", help="completion tokens that clients may use")
    option(group, "--budget-per", choices=("minute", "batch"), default="minute", help="period of the budget")
    scope = "whether each client key has a budget, or all clients share one"
    option(group, "--budget-scope", choices=("key", "all"), default="all", help=scope)
    ledger = "SQLite file that keeps the budgets after a restart"
    option(group, "--ledger", type=LEDGER, metavar="FILE", help=ledger)
    option(group, "--answer-tokens", default=256, metavar="N", help="part of a request's budget for its answer")

    group = parser.add_argument_group("recalibration in the background, on audited requests")
    recalibrated = "write the calibration that fits the traffic"
    option(group, "--recalibrated", type=CALIBRATION, metavar="FILE", help=recalibrated)
    flag(group, "--apply-recalibration", help="use that calibration at once, if it separates right from wrong answers")


def run(options: argparse.Namespace) -> int:
    """Serve until the process is stopped."""
    try:
        from justenough.gateway.app.descriptors import fitted
        from justenough.gateway.app.server import build_server
        from justenough.gateway.settings import is_loopback
    except ImportError as error:
        raise MissingExtra(error.name or "starlette", extra="gateway") from error
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # These lines are about connections that ended early; the gateway reports them itself.
    connections = logging.getLogger("uvicorn.error")
    connections.setLevel(logging.WARNING)
    connections.addFilter(_is_failure)
    options = configured(options, add_options, required="upstream", ignored=(UPSTREAM_KEY, CASCADE_KEY))
    settings = settings_of(options)
    settings = replace(settings, limits=fitted(settings.limits))
    playground: bool = is_loopback(options.host) if options.playground is None else options.playground
    cautions = _cautions(settings, extends=options.extend is not None)
    for warning in (*settings.prompt_warnings, *cautions, *_idle(settings)):
        say(f"warning: {warning}")
    server, listener = build_server(
        settings,
        host=options.host,
        port=options.port,
        allow_remote=options.allow_remote,
        playground=playground,
        allow_origins=tuple(options.allow_origin),
    )
    for upstream in filter(None, (options.upstream, options.cascade_upstream)):
        if leads_to(upstream, listener):
            listener.close()
            raise InputError(f"{upstream} is the address of this gateway itself", hint="another --port or --upstream")
    host, port = listener.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    if playground:
        say(f"page to ask and to watch: http://{host}:{port}/")
    say(f"listening on http://{host}:{port}/v1, mode {settings.effective_mode}, upstream {settings.origin}")
    if settings.calibration is None and settings.effective_mode == "observe" and settings.mode is None:
        say("nothing is stopped without --calibration FILE or --rule NAME: requests are relayed and measured")
    # Imported modules stay in memory; the garbage collector must not scan them while tokens wait.
    gc.collect()
    gc.freeze()
    # Ctrl-C is the usual way to stop a server; uvicorn raises the signal again when the open streams have ended.
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    say("stopped")
    return 0


def _is_failure(record: logging.LogRecord) -> bool:
    """Whether a line of the log is about more than a second Ctrl-C, which cancels what the first one waits for."""
    kind = None if record.exc_info is None else record.exc_info[0]
    return kind is not CancelledError and "asyncio.exceptions.CancelledError" not in record.getMessage()


def leads_to(url: str, listener: socket.socket) -> bool:
    """Whether a URL, under any name of this machine, is the address of a listening socket."""
    parts = urlsplit(url)
    host, port = listener.getsockname()[:2]
    if (parts.port or (443 if parts.scheme == "https" else 80)) != port:
        return False
    own = ip_address(host)
    try:
        replies = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError:
        return False
    for address in {str(reply[4][0]).partition("%")[0] for reply in replies}:
        ip = ip_address(address)
        ip = getattr(ip, "ipv4_mapped", None) or ip
        if ip == own or (ip.is_unspecified and own.is_loopback):
            return True
        if own.is_unspecified and own.version >= ip.version and (ip.is_unspecified or _is_local(str(ip))):
            return True
    return False


def _is_local(address: str) -> bool:
    """Whether an address belongs to this machine: only then can a socket be bound to it."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _cautions(settings: GatewaySettings, *, extends: bool) -> list[str]:
    """Why this gate cannot save anything. `extends`: the operator has asked for further steps."""
    if settings.calibration is None or settings.calibration.never_stops is not None:
        return settings.cautions
    wanted = ". If you want the further steps, give --extend refine"
    return [] if extends else [caution + wanted for caution in settings.cautions]


def _idle(settings: GatewaySettings) -> list[str]:
    """Which options do nothing beside the others, and why."""
    from justenough.gateway.learn.recalibrate import unrenewable

    calibration = settings.calibration
    silent = "--audit-share is 0" if not settings.audit_share else "--rule has no audit" if settings.rule else None
    out = [] if silent is None or settings.record is None else [f"nothing is recorded: {silent}"]
    if calibration is not None and (settings.recalibrated is not None or settings.apply_recalibration):
        reason = silent or unrenewable(calibration)
        out += [] if reason is None else [f"nothing is recalibrated: {reason}"]
    return out


def settings_of(options: argparse.Namespace) -> GatewaySettings:
    """The gateway settings of options that are complete."""
    from justenough.calibration.calibration import load_calibration
    from justenough.gateway.settings import BudgetSettings, CascadeSettings, GatewaySettings, Limits
    from justenough.signal.thought import thought_format

    calibration = load_calibration(options.calibration) if options.calibration is not None else None
    limits = Limits(
        max_body_bytes=options.max_body * 1024 * 1024,
        max_concurrent=options.max_concurrent,
        idle_timeout_s=options.timeout,
        grace_s=options.grace,
        max_request_tokens=options.max_request_tokens,
    )
    if options.budget_tokens is None and options.ledger is not None:
        raise InputError("--ledger needs a budget", hint="give --budget-tokens N")
    if (options.recalibrated is not None or options.apply_recalibration) and calibration is None:
        raise InputError("recalibration needs a calibration", hint="give --calibration FILE")
    budget = None
    if options.budget_tokens is not None:
        budget = BudgetSettings(
            tokens=options.budget_tokens, per=options.budget_per, scope=options.budget_scope, file=options.ledger
        )
    if (options.cascade_upstream is None) != (options.cascade_model is None):
        hint = "give --cascade-upstream URL and --cascade-model NAME"
        raise InputError("a cascade needs a server and a model", hint=hint)
    cascade = None
    if options.cascade_upstream is not None:
        key = os.environ.get(CASCADE_KEY) or None
        cascade = CascadeSettings(upstream=options.cascade_upstream, model=options.cascade_model, key=key)
    return GatewaySettings(
        upstream=options.upstream,
        calibration=calibration,
        rule=live_rule(options),
        mode=options.mode,
        upstream_decides=options.upstream_decides,
        models=tuple(options.serves),
        default_temperature=options.default_temperature,
        thought=None if options.thought is None else thought_format(options.thought),
        close=None if options.close is None else options.close.replace("\\n", "\n"),
        answer_cue=options.answer_cue,
        audit_share=options.audit_share,
        extend=options.extend or "refine",
        on_hopeless=options.on_hopeless,
        cascade=cascade,
        apply_recalibration=options.apply_recalibration,
        recalibrated=options.recalibrated,
        record=options.record,
        record_bytes=options.record_mib * 1024 * 1024,
        record_text=not options.record_no_text,
        grader=options.grader,
        upstream_key=os.environ.get(UPSTREAM_KEY) or None,
        client_keys=_keys(options.client_key_file),
        budget=budget,
        answer_tokens=options.answer_tokens,
        limits=limits,
    )


def _keys(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        with path.open("rb") as file:
            # A pipe or a device may have no end.
            text = file.read(_MOST_KEY_BYTES + 1)
        if len(text) > _MOST_KEY_BYTES:
            raise InputError(f"{path} has more than {_MOST_KEY_BYTES} bytes", hint="one key on each line")
        lines = text.decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the keys in {path}", hint="a text file with one key on each line") from error
    # Other white space, such as U+00A0, can be part of a key.
    if keys := tuple(key for line in lines if (key := line.strip(" \t\r"))):
        return keys
    raise InputError(f"{path} has no key", hint="write one key on each line")
