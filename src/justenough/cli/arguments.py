"""Arguments that several commands share, and what they are made into."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from justenough.backends.protocol import Backend
    from justenough.runner import RunSettings
    from justenough.trace import Trace
    from justenough.trace.files import BadLine
    from justenough.trace.stream import Traces

SPEC = (
    "embedded[:NAME], openai:MODEL (key from OPENAI_API_KEY), llamacpp:PATH.gguf, hf:PATH, replay:TRACES,"
    " adadec[:NAME[@BITS]], calm:PATH[@MARGIN], deebert:PATH@BITS, or a plug-in's"
)


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else there")


def add_traces(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """`TRACES` and `--skip-bad`."""
    parser.add_argument(
        "traces", metavar="TRACES", type=Path, nargs="?" if optional else None, help="Parquet or exchange JSONL"
    )
    parser.add_argument("--skip-bad", action="store_true", help="count lines that cannot be read and go on")


def add_model(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """The model and how it is asked."""
    parser.add_argument("--model", metavar="SPEC", default=default, required=default is None, help=SPEC)
    add_run(parser)


def add_run(parser: argparse.ArgumentParser) -> None:
    """How a model is asked."""
    group = parser.add_argument_group("how the model is asked")
    group.add_argument("--base-url", metavar="URL", help="OpenAI-compatible server (default: OPENAI_BASE_URL)")
    group.add_argument(
        "--temperature", type=float, metavar="T", help="sampling temperature (default 0.8 embedded, 0.6)"
    )
    group.add_argument(
        "--max-tokens", type=int, metavar="N", help="limit of one completion (default 512 embedded, 4096)"
    )
    group.add_argument("--top-k", type=int, default=20, metavar="K", help="log-probabilities a token (default 20)")
    group.add_argument("--seed", type=int, default=0, help="of the sampling noise (default 0)")
    group.add_argument("--concurrency", type=int, metavar="N", help="problems under way at a time")
    group.add_argument(
        "--shape",
        choices=("sequential", "streaming"),
        default="sequential",
        help="a step is a whole completion, or a segment of one long thought (default sequential)",
    )
    group.add_argument(
        "--extend",
        choices=("refine", "wait", "effort", "cascade", "vote"),
        default="refine",
        help="how a sequential run goes on (default refine)",
    )
    group.add_argument("--cascade", metavar="SPEC", help="the stronger model that --extend cascade asks")
    group.add_argument("--splitter", metavar="NAME", help="where a streaming step ends: paragraph, sentence, tokens:N")
    group.add_argument(
        "--grader", default="exact", metavar="NAME", help="exact, number, choice, math, json or module:function"
    )
    group.add_argument("--prompts", metavar="NAME", help="general or embedded (default: by the model)")


def run_settings(options: argparse.Namespace, *, steps: int, seed: int | None = None) -> RunSettings:
    """The run settings that the arguments describe."""
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


def backends(options: argparse.Namespace) -> AbstractAsyncContextManager[tuple[Backend, Backend | None]]:
    """The model asked, and the stronger one of a cascade; both closed at the end of the block."""
    return _opened(options)


@asynccontextmanager
async def _opened(options: argparse.Namespace) -> AsyncIterator[tuple[Backend, Backend | None]]:
    from justenough.backends.registry import open_backend

    def opened(spec: str) -> Backend:
        return open_backend(spec, base_url=options.base_url, concurrency=options.concurrency, prompts=options.prompts)

    backend = opened(options.model)
    try:
        cascade = opened(options.cascade) if options.cascade else None
        try:
            yield backend, cascade
        finally:
            if cascade is not None:
                await cascade.close()
    finally:
        await backend.close()


def open_traces(options: argparse.Namespace) -> Traces:
    """The traces of the file named, to go through more than once: Parquet is read anew each time, and never held."""
    from justenough.trace.files import is_parquet
    from justenough.trace.stream import TraceFile

    if not is_parquet(options.traces):
        return load_traces(options)
    return TraceFile(options.traces, skip_bad=options.skip_bad)


def say_left_out(bad: Sequence[BadLine]) -> None:
    """Count bad lines on stderr."""
    from justenough.cli.terminal import say

    if bad:
        say(f"left out {len(bad)} bad lines; the first: line {bad[0].line}: {bad[0].reason}")


def load_traces(options: argparse.Namespace) -> list[Trace]:
    """The traces of the file named; bad lines end the command, or are counted on stderr with `--skip-bad`."""
    from justenough.errors import InputError
    from justenough.trace.files import read_traces

    loaded = read_traces(options.traces, skip_bad=options.skip_bad)
    say_left_out(loaded.bad)
    if not loaded.traces:
        raise InputError(f"{options.traces} holds no trace that can be read", hint="see the lines named above")
    return loaded.traces


def add_unit(parser: argparse._ActionsContainer) -> None:
    """`--unit`: what a budget counts."""
    parser.add_argument(
        "--unit", choices=("tokens", "calls"), default="tokens", help="what the budget counts (default tokens)"
    )


def whole_budget(text: str) -> int:
    """A whole number of tokens or calls that an argument names; raises `BudgetError`."""
    return int(budget_of(text, whole=True))


def budget_of(text: str, *, whole: bool = False) -> float:
    """The number of tokens or calls that an argument names; raises `BudgetError` for what cannot be spent."""
    from justenough.budget.allocation import checked_total
    from justenough.errors import BudgetError

    try:
        value: float = int(text) if whole else float(text)
    except ValueError as error:
        kind = "a whole number" if whole else "a number"
        raise BudgetError(f"the budget is {text!r}", hint=f"{kind} of tokens or calls above 0") from error
    return checked_total(value)
