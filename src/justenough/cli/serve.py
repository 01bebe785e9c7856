"""`justenough serve`."""

from __future__ import annotations

import argparse
import gc
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from justenough.cli.terminal import say
from justenough.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from justenough.gateway.settings import GatewaySettings

UPSTREAM_KEY = "JUSTENOUGH_UPSTREAM_KEY"
CASCADE_KEY = "JUSTENOUGH_CASCADE_KEY"
EPILOG = f"""\
Point any OpenAI client at http://HOST:PORT/v1. Without --calibration the gateway stops nothing; it relays and measures.
The key for the upstream is in the variable {UPSTREAM_KEY}. Without it the gateway passes the client's key on, unless
that is a key for the gateway (--client-key-file). The key for the second server of a cascade is in {CASCADE_KEY};
the client's key is never sent there.

examples:
  justenough serve --upstream http://127.0.0.1:8000
  justenough serve --upstream http://127.0.0.1:8000/v1 --calibration calibration.json
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument("--upstream", metavar="URL", required=True, help="address of the OpenAI-compatible server")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="the calibration of the gate")
    parser.add_argument(
        "--mode",
        choices=("off", "observe", "gate"),
        help="the most that the gateway does (default: gate with a threshold, otherwise observe)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (default 8080; 0: any free port)")
    parser.add_argument("--allow-remote", action="store_true", help="allow a --host that other machines can reach")
    parser.add_argument(
        "--playground",
        action=argparse.BooleanOptionalAction,
        help="serve a page at / to ask and to watch (default: only if no other machine can reach it)",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="allow web pages of this origin to use the gateway, for example https://chat.example.com",
    )
    parser.add_argument(
        "--client-key-file", type=Path, metavar="FILE", help="keys that clients must send, one on each line"
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="append traces of audited requests to this JSONL file, to calibrate on them",
    )
    parser.add_argument(
        "--record-mib", type=int, default=256, metavar="MIB", help="largest size of the record (default 256)"
    )
    parser.add_argument("--record-no-text", action="store_true", help="record no text, and answers as digests only")
    _add_model(parser)
    _add_limits(parser)
    _add_budget(parser)
    _add_learning(parser)


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the model")
    group.add_argument(
        "--serves", action="append", default=[], metavar="NAME", help="name of the calibrated model on the upstream"
    )
    group.add_argument(
        "--default-temperature",
        type=float,
        metavar="T",
        help="temperature of requests that name none, as on the upstream",
    )
    group.add_argument(
        "--extend",
        choices=("refine", "wait", "effort", "cascade"),
        default="refine",
        help="how a sequential run continues after a step (default refine)",
    )
    group.add_argument(
        "--on-hopeless",
        choices=("answer", "flag", "continue"),
        default="answer",
        help="where a calibration made with --give-up expects a wrong answer: let the model answer now (default), think"
        " on and say so in the report, or think on",
    )
    group.add_argument("--cascade-upstream", metavar="URL", help="address of the second server of a cascade")
    group.add_argument("--cascade-model", metavar="NAME", help="model on the second server")
    group.add_argument("--close", metavar="TEXT", help="ends a stopped thought (default: the calibration's)")
    group.add_argument("--answer-cue", metavar="TEXT", help="begins the answer after it (default: the calibration's)")
    group.add_argument(
        "--grader", metavar="NAME", default="exact", help="how answers of audited requests are compared (default exact)"
    )
    group.add_argument(
        "--audit-share",
        type=float,
        metavar="P",
        default=0.02,
        help="share of requests that run to the end (default 0.02)",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--max-request-tokens",
        type=int,
        metavar="N",
        help="completion tokens of one request (default: the limit of the request)",
    )
    group.add_argument(
        "--max-concurrent", type=int, default=512, metavar="N", help="requests at the same time (default 512)"
    )
    group.add_argument("--max-body", type=int, default=32, metavar="MIB", help="largest request body (default 32)")
    group.add_argument(
        "--timeout", type=float, default=600, metavar="S", help="longest silence of the upstream (default 600)"
    )
    group.add_argument(
        "--grace", type=float, default=30, metavar="S", help="time for open streams after SIGTERM (default 30)"
    )


def _add_learning(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recalibration in the background, on audited requests")
    group.add_argument("--recalibrated", type=Path, metavar="FILE", help="write the calibration that fits the traffic")
    group.add_argument(
        "--apply-recalibration",
        action="store_true",
        help="use that calibration at once, if it separates right from wrong answers",
    )


def _add_budget(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("token budgets")
    group.add_argument("--budget-tokens", type=int, metavar="N", help="completion tokens that clients may use")
    group.add_argument(
        "--budget-per", choices=("minute", "batch"), default="minute", help="period of the budget (default minute)"
    )
    group.add_argument(
        "--budget-scope",
        choices=("key", "all"),
        default="all",
        help="whether each client key has a budget, or all clients share one (default all)",
    )
    group.add_argument("--ledger", type=Path, metavar="FILE", help="SQLite file that keeps the budgets after a restart")
    group.add_argument(
        "--answer-tokens",
        type=int,
        default=256,
        metavar="N",
        help="part of a request's budget for its answer (default 256)",
    )


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
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    settings = settings_of(options)
    settings = replace(settings, limits=fitted(settings.limits))
    playground: bool = is_loopback(options.host) if options.playground is None else options.playground
    for warning in settings.prompt_warnings:
        say(f"warning: {warning}")
    server, listener = build_server(
        settings,
        host=options.host,
        port=options.port,
        allow_remote=options.allow_remote,
        playground=playground,
        allow_origins=tuple(options.allow_origin),
    )
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    if playground:
        say(f"page to ask and to watch: http://{shown}:{port}/")
    say(f"listening on http://{shown}:{port}/v1, mode {settings.effective_mode}, upstream {settings.origin}")
    # Imported modules stay in memory; the garbage collector must not scan them while tokens wait.
    gc.collect()
    gc.freeze()
    server.run(sockets=[listener])
    return 0


def settings_of(options: argparse.Namespace) -> GatewaySettings:
    """The gateway settings of the arguments."""
    from justenough.calibration.calibration import load_calibration
    from justenough.gateway.settings import BudgetSettings, CascadeSettings, GatewaySettings, Limits

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
    budget = None
    if options.budget_tokens is not None:
        budget = BudgetSettings(
            tokens=options.budget_tokens, per=options.budget_per, scope=options.budget_scope, file=options.ledger
        )
    if (options.cascade_upstream is None) != (options.cascade_model is None):
        raise InputError(
            "a cascade needs a server and a model", hint="give --cascade-upstream URL and --cascade-model NAME"
        )
    cascade = None
    if options.cascade_upstream is not None:
        key = os.environ.get(CASCADE_KEY) or None
        cascade = CascadeSettings(upstream=options.cascade_upstream, model=options.cascade_model, key=key)
    return GatewaySettings(
        upstream=options.upstream,
        calibration=calibration,
        mode=options.mode,
        models=tuple(options.serves),
        default_temperature=options.default_temperature,
        close=None if options.close is None else options.close.replace("\\n", "\n"),
        answer_cue=options.answer_cue,
        audit_share=options.audit_share,
        extend=options.extend,
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
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the keys in {path}", hint="a text file with one key on each line") from error
    # Other white space, such as U+00A0, can be part of a key.
    keys = tuple(key for line in lines if (key := line.strip(" \t\r")))
    if not keys:
        raise InputError(f"{path} has no key", hint="write one key on each line")
    return keys
