"""`justenough setup`.

The command finds the model and what the server can do, collects a sample, fits a gate on half of it, tests the gate on
the other half, and sends the same requests directly and through the gateway. It prints the command that starts the
gateway; or why gating is not worth it here, or that the sample is too small for an answer (exit code 1).

With --tasks the answers are graded. With --prompts, or without targets, an answer counts as right if it agrees with the
final answer, so the figures show how many answers would change. In a terminal, the command asks for what the options
leave open; in a script, give --yes. All files are in the folder --out, and the same command resumes. The key for the
server is in the variable OPENAI_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from justenough.cli import arguments, running
from justenough.cli.collect import choose_shape
from justenough.cli.paths import CALIBRATION, COLLECTION, folder, input_file, name_or_file
from justenough.cli.serve import UPSTREAM_KEY
from justenough.cli.setup_result import Setup
from justenough.cli.terminal import ProgressLine, print_json, say, show
from justenough.errors import BackendError, InputError, Interrupted, MissingExtra
from justenough.stats.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from justenough.gateway.settings import GatewaySettings
    from justenough.grading import Grader, Problem
    from justenough.prompts import Prompts
    from justenough.runner import RunSettings
    from justenough.trace import Json, Trace

_TRACES: Final = "traces.parquet"
_CALIBRATION: Final = "calibration.json"
_FEWEST: Final = 20
"""Problems of which half can be calibrated on."""
_PILOT: Final = 5
"""Problems that are run before the cost of all is estimated."""
_AT_ONCE: Final = 4
"""Requests of the live check."""
_TEMPERATURE: Final = 0.6
"""The temperature if the server does not state its default."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    option = arguments.add_option
    upstream = "address of the OpenAI-compatible server (default: OPENAI_BASE_URL)"
    option(parser, "--upstream", metavar="URL", help=upstream)
    option(parser, "--model", metavar="NAME", help="the model (default: the server's only one)")
    option(parser, "--tasks", type=name_or_file, metavar="NAME|FILE", help=f"problems with targets: {arguments.TASKS}")
    prompts = "problems without targets: a text file with one on each line, JSON Lines, CSV or Parquet"
    option(parser, "--prompts", type=input_file, metavar="FILE", help=prompts)
    grader = "how answers are compared: exact, number, choice, math, json or module:function"
    option(parser, "--grader", default="exact", metavar="NAME", help=grader)
    option(parser, "--limit", default=120, metavar="N", help="run the first N problems")
    harm = "largest share of problems that may lose a right answer"
    option(parser, "--max-harm", default=0.05, metavar="P", help=harm)
    option(parser, "--check", default=20, metavar="N", help="requests of the live check; 0 leaves it out")
    option(parser, "--out", type=folder, default="justenough-setup", metavar="DIR", help="folder of all files")
    arguments.add_flag(parser, "--yes", help="do not ask before tokens are spent")
    group = parser.add_argument_group("options of the run")
    temperature = "sampling temperature (default: the server's, if it tells, otherwise 0.6)"
    option(group, "--temperature", type=float, metavar="T", help=temperature)
    option(group, "--max-tokens", type=int, metavar="N", help="token limit of one answer (default 4096)")
    arguments.add_top_k(group)
    arguments.add_seed(group, help="seed of the sampling")
    arguments.add_concurrency(group)
    splitter = "where a step of the thought ends: paragraph, sentence or tokens:N (default paragraph)"
    option(group, "--splitter", metavar="NAME", help=splitter)
    arguments.add_thought(group, default="as the model shows")
    arguments.add_json(parser)
    parser.set_defaults(shape=None, extend="refine", cascade=None, gate=None)
    parser.set_defaults(exits=None, leave=None, dtype="float32", device="cpu", branching=None)


def run(options: argparse.Namespace) -> int:
    """Run all steps and show the result."""
    try:
        import justenough.gateway.livecheck  # noqa: F401
    except ImportError as error:
        raise MissingExtra(error.name or "aiohttp", extra="gateway") from error
    result = asyncio.run(_set_up(options))
    if options.json:
        print_json(result.to_json())
    else:
        show(result.text)
    return 0 if result.worth_it else 1


async def _set_up(options: argparse.Namespace) -> Setup:
    """Check all that is given before the server is asked anything."""
    from justenough.files import require_writable
    from justenough.grading import open_grader

    _check_values(options)
    with closing(open_grader(options.grader)) as grader:
        url = (
            options.upstream
            or os.environ.get("OPENAI_BASE_URL")
            or _asked("address of the server", option="--upstream URL")
        )
        problems = _problems(options)
        require_writable(options.out)
        return await _measured(options, url, problems, grader)


async def _measured(options: argparse.Namespace, url: str, problems: list[Problem], grader: Grader) -> Setup:
    from justenough.backends.notation import notation_for
    from justenough.evaluation.diagnosis import diagnose
    from justenough.evaluation.propose import propose
    from justenough.gateway.livecheck import capabilities_of
    from justenough.gateway.settings import GatewaySettings
    from justenough.grading.regrade import agreeing
    from justenough.runner.walk import spent
    from justenough.signal.thought import name_of

    key = os.environ.get(UPSTREAM_KEY) or os.environ.get("OPENAI_API_KEY") or None
    gateway = GatewaySettings(upstream=url, upstream_key=key)
    model = _model(options, url)
    abilities = await capabilities_of(gateway, model=model)
    say(f"{model} at {gateway.origin}: {abilities.engine}, continues a cut thought by {abilities.chat or 'no way'}")
    setup = Setup(upstream=url, model=model, abilities=abilities)
    if abilities.chat is None:
        setup.objection = "the server cannot continue a thought that was cut, so nothing could be stopped"
        return setup
    if abilities.chat == "template":
        setup.objection = (
            "the server continues a cut thought only by its raw prompt, which this command cannot send; collect through"
            f" the gateway: justenough serve --upstream {url} --audit-share 1 --record traces.jsonl"
        )
        return setup
    setup.labels = "graded" if all(problem.targets for problem in problems) else "agreement"
    run = argparse.Namespace(**vars(options))
    run.model, run.base_url, run.prompts, run.out = f"openai:{model}", url, None, options.out / _TRACES
    if run.temperature is None:
        run.temperature = _TEMPERATURE if abilities.temperature is None else abilities.temperature
    await choose_shape(run, problems)
    if run.shape == "sequential":
        setup.objection = "the model answers without a thought, so there is nothing to stop"
        return setup
    own = notation_for(model, thought=run.thought).prompts.thought
    if run.thought is None and abilities.thought is not None and abilities.thought.tags != own.tags:
        # A thought in a field of its own comes without tags, but the chat template shows them.
        run.thought = name_of(abilities.thought)
    settings = running.run_settings(run, steps=None)
    traces, prompts = await _collected(run, settings, problems)
    setup.tokens = sum(spent(trace.steps) for trace in traces)
    graded = traces if setup.labels == "graded" else [agreeing(trace, grader) for trace in traces]
    setup.diagnosis = diagnose(graded)
    setup.proposal = proposal = propose(
        traces, graded, labels=setup.labels, max_harm=options.max_harm, seed=options.seed
    )
    setup.objection = proposal.objection
    if proposal.calibration is None or proposal.objection is not None:
        return setup
    setup.file = options.out / _CALIBRATION
    proposal.calibration.save(setup.file)
    fitted = set(proposal.calibration.fitted_on)
    others = [one for one, trace in zip(problems, traces, strict=True) if trace.hashed_id not in fitted]
    if options.check:
        gateway = replace(gateway, calibration=proposal.calibration)
        await _check(setup, gateway, run, settings, prompts, others[: options.check], grader)
    return setup


async def _collected(
    run: argparse.Namespace, settings: RunSettings, problems: Sequence[Problem]
) -> tuple[list[Trace], Prompts]:
    """Run a few problems, say what all will cost, and run the others."""
    from justenough.runner.collect import collect
    from justenough.runner.journal import begun
    from justenough.runner.walk import spent

    async with running.backends(run) as (backend, _):

        async def collected(part: Sequence[Problem]) -> list[Trace]:
            result = await collect(
                part,
                run.out,
                backend=backend,
                settings=settings,
                grader=run.grader,
                concurrency=run.concurrency,
                progress=ProgressLine("setup"),
            )
            return list(result.traces)

        if begun(run.out) is None:
            pilot = await collected(problems[:_PILOT])
            cost = sum(spent(trace.steps) for trace in pilot) / len(pilot)
            say(
                f"cost: {len(pilot)} problems took {cost:,.0f} tokens each, with the answers after each step; all"
                f" {len(problems)} will take about {cost * len(problems):,.0f}, and the check about"
                f" {2 * min(run.check, len(problems) // 2)} answers more"
            )
            if not run.yes and not _asked("go on? y or n", option="--yes").lower().startswith("y"):
                raise InputError("nothing more was collected", hint=f"{run.out} is kept, the same command goes on")
        return await collected(problems), backend.prompts


async def _check(
    setup: Setup,
    gateway: GatewaySettings,
    run: argparse.Namespace,
    settings: RunSettings,
    prompts: Prompts,
    problems: Sequence[Problem],
    grader: Grader,
) -> None:
    """Send the same requests on both ways, and compare the answers."""
    from justenough.backends.notation import notation_for
    from justenough.gateway.livecheck import check
    from justenough.grading.graders import is_right

    read = notation_for(setup.model).read
    bodies: list[dict[str, Json]] = [
        {
            "model": setup.model,
            "messages": [{"role": "user", "content": prompts.think.format(problem=read(problem.problem))}],
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
            "seed": settings.seed + number,
        }
        for number, problem in enumerate(problems)
    ]
    say(f"live check: {counted(len(bodies), 'request')} directly, then through the gateway")
    try:
        setup.check = done = await check(gateway, bodies, concurrency=run.concurrency or _AT_ONCE)
    except BackendError as error:
        hint = "the same command repeats the check; the sample and the calibration are kept"
        raise Interrupted(f"the live check failed: {error}", hint=hint) from error
    answers = [
        [grader.extract(prompts.thought.answer_of(reply.text)) for reply in side.replies]
        for side in (done.direct, done.gated)
    ]
    setup.changed = sum(
        one != other and not (one is not None and other is not None and grader.grade(other, one))
        for one, other in zip(*answers, strict=True)
    )
    if setup.labels == "graded":
        right = [
            sum(bool(is_right(grader, answer, one.targets)) for answer, one in zip(side, problems, strict=True))
            for side in answers
        ]
        setup.right = right[0], right[1]
    if not done.stopped:
        setup.objection = f"in the live check the gateway stopped no request ({', '.join(done.reasons)})"
    elif done.saving <= 0:
        setup.objection = "in the live check the gateway saved no tokens"


def _check_values(options: argparse.Namespace) -> None:
    """Raise `InputError` for a value that would be refused only after tokens were spent."""
    if options.check < 0:
        raise InputError(f"--check is {options.check}", hint="0 or more requests")
    if not 0 < options.max_harm < 1:
        raise InputError(f"--max-harm is {options.max_harm}", hint="a share between 0 and 1, for example 0.05")
    _check_number(options.limit)
    running.check_run(options, model="openai:", steps=None)
    COLLECTION.check(options.out / _TRACES, flag="--out")
    CALIBRATION.check(options.out / _CALIBRATION, flag="--out")


def _check_number(problems: int) -> None:
    if problems < _FEWEST:
        raise InputError(f"{problems} problems are too few to test a gate", hint=f"at least {_FEWEST}, better 120")


def _model(options: argparse.Namespace, url: str) -> str:
    from justenough.backends.http import Site, models_of

    names = sorted(models_of(Site(url), optional=options.model is not None))
    if options.model is None and len(names) == 1:
        return names[0]
    if options.model is None and not names:
        raise InputError(f"{url} lists no models", hint="--model NAME")
    chosen: str = options.model or _asked(f"which model? {', '.join(names[:8])}", option="--model NAME")
    chosen = chosen.removeprefix("openai:")
    if names and chosen not in names:
        raise InputError(f"{url} has no model {chosen!r}", hint=f"one of {', '.join(names[:8])}")
    return chosen


def _problems(options: argparse.Namespace) -> list[Problem]:
    """The problems of --tasks; those of --prompts, or of a file that the user names, without targets."""
    from justenough.grading import Problem, read_tasks

    if options.tasks is not None and options.prompts is not None:
        raise InputError("both --tasks and --prompts name the problems", hint="give one of the two")
    if options.tasks is None and options.prompts is None:
        options.tasks = _asked("task file, or a file with one prompt on each line (.txt)", option="--tasks FILE")
    path = options.prompts or Path(options.tasks)
    if path.suffix == ".txt":
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read: {error}", hint="a text file, one prompt on each line") from error
        problems = [Problem(id=str(at), problem=line, target=None) for at, line in enumerate(lines, 1) if line.strip()]
        problems = problems[: options.limit]
    else:
        problems = read_tasks(str(path), limit=options.limit)
    if options.prompts is not None:
        problems = [replace(problem, target=None, other_targets=()) for problem in problems]
    _check_number(len(problems))
    return problems


def _asked(question: str, *, option: str) -> str:
    """The user's reply; without a terminal the option is needed."""
    if not sys.stdin.isatty():
        raise InputError(f"{question}: this is no terminal, so nobody can be asked", hint=f"give {option}")
    print(f"{question}: ", end="", file=sys.stderr, flush=True)
    reply = sys.stdin.readline().strip()
    if not reply:
        raise InputError(f"{question}: there was no reply", hint=f"give {option}")
    return reply
