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
Point any OpenAI client at http://HOST:PORT/v1. Without --calibration nothing is stopped: requests are relayed and
measured. A key for the upstream comes from {UPSTREAM_KEY}; without it the client's own is passed through, unless it
is one for the gateway (--client-key-file). A key for a cascade's second server comes from {CASCADE_KEY}; the client's
never goes there.

examples:
  justenough serve --upstream http://127.0.0.1:8000
  justenough serve --upstream http://127.0.0.1:8000/v1 --calibration calibration.json
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("--upstream", metavar="URL", required=True, help="the OpenAI-compatible server behind")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="when to stop, and in which shape")
    parser.add_argument(
        "--mode", choices=("off", "observe", "gate"), help="at most this (default: gate with a threshold, else observe)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (default 8080; 0: a free one)")
    parser.add_argument("--allow-remote", action="store_true", help="let --host be one that other machines can reach")
    parser.add_argument(
        "--playground",
        action=argparse.BooleanOptionalAction,
        help="show a page to ask and to watch at / (default: only where no other machine can reach it)",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="web pages from there may use the gateway, such as https://chat.example.com; others may not",
    )
    parser.add_argument("--client-key-file", type=Path, metavar="FILE", help="keys that clients must show, one a line")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="append traces of audited requests, to calibrate on (JSONL)"
    )
    parser.add_argument("--record-mib", type=int, default=256, metavar="MIB", help="no more than this (default 256)")
    parser.add_argument("--record-no-text", action="store_true", help="record no text; answers only as digests")
    _add_model(parser)
    _add_limits(parser)
    _add_budget(parser)
    _add_learning(parser)


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the model")
    group.add_argument(
        "--serves", action="append", default=[], metavar="NAME", help="the upstream's name for the calibrated model"
    )
    group.add_argument(
        "--default-temperature", type=float, metavar="T", help="the upstream's, where a request names none"
    )
    group.add_argument(
        "--extend",
        choices=("refine", "wait", "effort", "cascade"),
        default="refine",
        help="how sequential steps go on (default refine)",
    )
    group.add_argument("--cascade-upstream", metavar="URL", help="the server of a cascade's second model")
    group.add_argument("--cascade-model", metavar="NAME", help="that model")
    group.add_argument("--close", metavar="TEXT", help="ends a stopped thought (default: the calibration's)")
    group.add_argument("--answer-cue", metavar="TEXT", help="begins the answer then (default: the calibration's)")
    group.add_argument("--grader", metavar="NAME", default="exact", help="how audited answers are compared")
    group.add_argument(
        "--audit-share", type=float, metavar="P", default=0.02, help="share that runs to its end (default 0.02)"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--max-request-tokens", type=int, metavar="N", help="completion tokens of one request (default: its own limit)"
    )
    group.add_argument("--max-concurrent", type=int, default=512, metavar="N", help="requests under way (default 512)")
    group.add_argument("--max-body", type=int, default=32, metavar="MIB", help="largest request (default 32)")
    group.add_argument("--timeout", type=float, default=600, metavar="S", help="longest silence of the upstream")
    group.add_argument("--grace", type=float, default=30, metavar="S", help="for open streams after SIGTERM")


def _add_learning(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recalibration, in the background, on the audited share")
    group.add_argument(
        "--recalibrated", type=Path, metavar="FILE", help="write the calibration that the traffic would give"
    )
    group.add_argument(
        "--apply-recalibration", action="store_true", help="gate by it at once, where it separates right from wrong"
    )


def _add_budget(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("token budgets")
    group.add_argument("--budget-tokens", type=int, metavar="N", help="completion tokens that clients may have")
    group.add_argument("--budget-per", choices=("minute", "batch"), default="minute", help="(default minute)")
    group.add_argument(
        "--budget-scope",
        choices=("key", "all"),
        default="all",
        help="so many for each client key, or for all (default)",
    )
    group.add_argument("--ledger", type=Path, metavar="FILE", help="where they outlive the process (SQLite)")
    group.add_argument(
        "--answer-tokens",
        type=int,
        default=256,
        metavar="N",
        help="of a request's budget, for its answer (default 256)",
    )


def run(options: argparse.Namespace) -> int:
    """Serve until told to end."""
    try:
        from justenough.gateway.app.descriptors import fitted
        from justenough.gateway.app.server import build_server
        from justenough.gateway.settings import is_loopback
    except ImportError as error:
        raise MissingExtra(error.name or "starlette", extra="gateway") from error
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Its lines are about connections that ended early, which the gateway counts and tells itself.
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
        say(f"a page to ask and to watch: http://{shown}:{port}/")
    say(f"listening on http://{shown}:{port}/v1, mode {settings.effective_mode}, upstream {settings.origin}")
    # What was imported stays: the collector need not look through it again while tokens wait.
    gc.collect()
    gc.freeze()
    server.run(sockets=[listener])
    return 0


def settings_of(options: argparse.Namespace) -> GatewaySettings:
    """The gateway that the arguments describe."""
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
        raise InputError("a ledger without a budget", hint="give --budget-tokens N")
    budget = None
    if options.budget_tokens is not None:
        budget = BudgetSettings(
            tokens=options.budget_tokens, per=options.budget_per, scope=options.budget_scope, file=options.ledger
        )
    if (options.cascade_upstream is None) != (options.cascade_model is None):
        raise InputError("a cascade is a server and its model", hint="--cascade-upstream URL --cascade-model NAME")
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
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the keys in {path}", hint="a text file, one key a line") from error
    keys = tuple(line.strip() for line in lines if line.strip())
    if not keys:
        raise InputError(f"{path} holds no key", hint="one a line")
    return keys
