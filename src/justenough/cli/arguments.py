"""Arguments that several commands share, and the objects that they describe."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from justenough.backends.protocol import Backend
    from justenough.calibration.calibration import Calibration
    from justenough.evaluation import Price
    from justenough.runner import RunSettings
    from justenough.trace import Trace
    from justenough.trace.files import BadLine, TraceFile

SPEC = (
    "embedded[:NAME], openai:MODEL (key from OPENAI_API_KEY), llamacpp:PATH.gguf, hf:PATH, replay:TRACES,"
    " adadec[:NAME[@BITS]], calm:PATH[@MARGIN], deebert:PATH@BITS, or a plug-in's"
)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout instead of text")


def add_traces(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add `TRACES` and `--skip-bad`."""
    parser.add_argument(
        "traces",
        metavar="TRACES",
        type=Path,
        nargs="?" if optional else None,
        help="a file of traces: Parquet or exchange JSONL",
    )
    parser.add_argument("--skip-bad", action="store_true", help="skip lines that cannot be read, and report how many")


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    """Add the options of `evaluate` and `report`."""
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="the calibration of the gate")
    parser.add_argument("--seed", type=int, default=0, help="seed of draws and resampling (default 0)")
    parser.add_argument(
        "--prices", type=Path, metavar="FILE", help="JSON file: model → input and output price of a million tokens"
    )


def evaluation_inputs(options: argparse.Namespace) -> tuple[TraceFile, Calibration | None, dict[str, Price] | None]:
    """The traces, the calibration and the prices of `add_evaluation`."""
    from justenough.calibration.calibration import load_calibration
    from justenough.evaluation import load_prices

    calibration = load_calibration(options.calibration) if options.calibration else None
    return open_traces(options), calibration, load_prices(options.prices) if options.prices else None


def add_model(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """Add `--model` and the options of a run."""
    parser.add_argument("--model", metavar="SPEC", default=default, required=default is None, help=SPEC)
    add_run(parser)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the options of a run."""
    group = parser.add_argument_group("options of the run")
    group.add_argument(
        "--base-url", metavar="URL", help="address of the OpenAI-compatible server (default: OPENAI_BASE_URL)"
    )
    group.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="sampling temperature (default 0.8 for the embedded model, otherwise 0.6)",
    )
    group.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="token limit of one completion (default 512 for the embedded model, otherwise 4096)",
    )
    group.add_argument(
        "--top-k", type=int, default=20, metavar="K", help="log-probabilities for each token (default 20)"
    )
    group.add_argument("--seed", type=int, default=0, help="seed of the sampling (default 0)")
    group.add_argument("--concurrency", type=int, metavar="N", help="problems that run at the same time")
    group.add_argument(
        "--shape",
        choices=("sequential", "streaming"),
        default="sequential",
        help="a step is a whole completion (sequential, default) or a part of one thought (streaming)",
    )
    group.add_argument(
        "--extend",
        choices=("refine", "wait", "effort", "cascade", "vote"),
        default="refine",
        help="how a sequential run continues after a step (default refine)",
    )
    group.add_argument("--cascade", metavar="SPEC", help="the stronger model for --extend cascade")
    group.add_argument(
        "--splitter",
        metavar="NAME",
        help="where a streaming step ends: paragraph, sentence or tokens:N (default paragraph)",
    )
    group.add_argument(
        "--grader",
        default="exact",
        metavar="NAME",
        help="how answers are graded: exact, number, choice, math, json or module:function (default exact)",
    )
    group.add_argument(
        "--thought",
        metavar="FORMAT",
        help="how the model marks its thought: think, think-opened, harmony, gemma, mistral, …, or until:CUE for a"
        " thought without tags that ends where CUE begins the answer, for example until:Answer: (default: by the"
        " prompts)",
    )
    group.add_argument(
        "--prompts",
        metavar="NAME",
        help="general, opened (the chat template opens the thought), embedded or a plug-in's (default: by the model)",
    )


def run_settings(options: argparse.Namespace, *, steps: int, seed: int | None = None) -> RunSettings:
    """The run settings of the arguments."""
    from justenough.runner import RunSettings

    embedded = options.model.partition(":")[0] in ("embedded", "adadec")
    temperature = options.temperature if options.temperature is not None else 0.8 if embedded else 0.6
    return RunSettings(
        shape=options.shape,
        extend=options.extend if options.shape == "sequential" else "refine",
        max_steps=steps,
        max_tokens=options.max_tokens if options.max_tokens is not None else 512 if embedded else 4096,
        temperature=temperature,
        top_k=options.top_k,
        seed=options.seed if seed is None else seed,
        splitter=options.splitter,
    )


@asynccontextmanager
async def backends(options: argparse.Namespace) -> AsyncIterator[tuple[Backend, Backend | None]]:
    """Open the model, and the stronger model of a cascade; the end of the block closes both."""
    from justenough.backends.registry import open_backend
    from justenough.errors import InputError
    from justenough.thought import thought_format

    async with AsyncExitStack() as stack:

        def opened(spec: str) -> Backend:
            backend = open_backend(
                spec,
                base_url=options.base_url,
                concurrency=options.concurrency,
                prompts=options.prompts,
                thought=options.thought,
            )
            stack.push_async_callback(backend.close)
            if options.thought is not None and backend.prompts.thought != thought_format(options.thought):
                raise InputError(f"{spec} has its own format of thoughts", hint="leave --thought out")
            return backend

        yield opened(options.model), opened(options.cascade) if options.cascade else None


def open_traces(options: argparse.Namespace) -> TraceFile:
    """The traces of the file. It is read again on each pass and is never held in memory."""
    from justenough.trace.files import TraceFile, is_parquet

    is_parquet(options.traces)  # Raises if there is no such file.
    return TraceFile(options.traces, skip_bad=options.skip_bad)


def say_skipped(traces: TraceFile) -> None:
    """Report on stderr how many lines of a file were skipped while it was read."""
    _say_bad(traces.bad)


def _say_bad(bad: Sequence[BadLine]) -> None:
    from justenough.cli.terminal import say

    if bad:
        say(f"skipped {len(bad)} bad lines; the first is line {bad[0].line}: {bad[0].reason}")


def load_traces(options: argparse.Namespace) -> list[Trace]:
    """All traces of the file. A bad line is an error; with `--skip-bad` it is counted on stderr."""
    from justenough.errors import InputError
    from justenough.trace.files import read_traces

    loaded = read_traces(options.traces, skip_bad=options.skip_bad)
    _say_bad(loaded.bad)
    if not loaded.traces:
        raise InputError(f"{options.traces} has no trace that can be read", hint="see the line above")
    return loaded.traces


def add_unit(parser: argparse._ActionsContainer) -> None:
    """Add `--unit`."""
    parser.add_argument(
        "--unit", choices=("tokens", "calls"), default="tokens", help="what the budget counts (default tokens)"
    )


def whole_budget(text: str) -> int:
    """The whole number of tokens or calls in an argument; raises `BudgetError` if it is not one."""
    return int(budget_of(text, whole=True))


def budget_of(text: str, *, whole: bool = False) -> float:
    """The number of tokens or calls in an argument; raises `BudgetError` if it cannot be spent."""
    from justenough.budget.allocation import checked_total
    from justenough.errors import BudgetError

    try:
        value: float = int(text) if whole else float(text)
    except ValueError as error:
        kind = "a whole number" if whole else "a number"
        raise BudgetError(f"the budget is {text!r}", hint=f"{kind} of tokens or calls above 0") from error
    return checked_total(value)
