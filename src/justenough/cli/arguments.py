"""Arguments that several commands share; `running` has what those of a run describe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from justenough.cli.parser import NUMBERS
from justenough.cli.paths import DRAWING, folder, input_file

if TYPE_CHECKING:
    from justenough.calibration.calibration import Calibration
    from justenough.evaluation import Price
    from justenough.rules.live import LiveRule
    from justenough.trace.files import LoadResult, TraceFile

SPEC = (
    "embedded[:NAME], openai:MODEL (key from OPENAI_API_KEY), llamacpp:PATH.gguf, hf:PATH, replay:TRACES,"
    " adadec[:NAME[@BITS]], adadec:hf:PATH[@BITS], calm:PATH[@MARGIN], deebert:PATH@BITS, or a plug-in's"
)
DTYPE: Final = "float32"
DEVICE: Final = "cpu"
"""The defaults of `add_loading`."""
TASKS = "a built-in task, or a file: JSON Lines, CSV or Parquet"


def add_option(
    parser: argparse._ActionsContainer,
    flag: str,
    *,
    help: str,
    metavar: str | None = None,
    type: Callable[[str], object] | None = None,
    default: str | float | None = None,
    choices: Sequence[str] | None = None,
    required: bool = False,
) -> None:
    """Add an option with a value. A default gives the type, and the help names it."""
    if default is not None:
        type, help = type or default.__class__, f"{help} (default {default})"
    type = NUMBERS.get(type, type or str)
    parser.add_argument(
        flag, help=help, metavar=metavar, type=type, default=default, choices=choices, required=required
    )


def add_flag(parser: argparse._ActionsContainer, flag: str, *, help: str) -> None:
    """Add an option without a value."""
    parser.add_argument(flag, action="store_true", help=help)


def add_seed(parser: argparse._ActionsContainer, *, help: str, default: int = 0) -> None:
    """Add `--seed`."""
    add_option(parser, "--seed", type=_seed, default=default, metavar="N", help=help)


def add_concurrency(parser: argparse._ActionsContainer, *, default: int | None = None) -> None:
    """Add `--concurrency`."""
    about = "problems that run at the same time"
    add_option(parser, "--concurrency", type=_at_once, default=default, metavar="N", help=about)


def _seed(text: str) -> int:
    return _whole(text, option="--seed", least=0)


def _at_once(text: str) -> int:
    return _whole(text, option="--concurrency", least=1)


def _whole(text: str, *, option: str, least: int) -> int:
    """A whole number that fits into 64 bits; raises `InputError`."""
    from justenough.errors import InputError

    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value < 2**63:
        raise InputError(f"{option} is {text}", hint=f"a whole number, {least} or more")
    return value


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    add_flag(parser, "--json", help="print one JSON object on stdout instead of text")


def add_plot(parser: argparse.ArgumentParser, *, about: str) -> None:
    """Add `--plot`."""
    add_option(parser, "--plot", type=DRAWING, metavar="FILE.svg", help=f"also draw {about}")


def add_traces(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add `TRACES` and `--skip-bad`."""
    about = "a file of traces: Parquet or exchange JSONL; - is standard input"
    parser.add_argument("traces", metavar="TRACES", type=input_file, nargs="?" if optional else None, help=about)
    add_flag(parser, "--skip-bad", help="skip lines that cannot be read, and report how many")


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    """Add the options of `evaluate` and `report`."""
    add_option(parser, "--calibration", type=input_file, metavar="FILE", help="the calibration of the gate")
    add_seed(parser, help="seed of draws and resampling")
    prices = "JSON file: model → input and output price of a million tokens"
    add_option(parser, "--prices", type=input_file, metavar="FILE", help=prices)


def evaluation_inputs(options: argparse.Namespace) -> tuple[TraceFile, Calibration | None, dict[str, Price] | None]:
    """The traces, the calibration and the prices of `add_evaluation`."""
    from justenough.calibration.calibration import load_calibration
    from justenough.evaluation import load_prices

    calibration = load_calibration(options.calibration) if options.calibration else None
    return open_traces(options), calibration, load_prices(options.prices) if options.prices else None


def add_model(parser: argparse.ArgumentParser, *, default: str | None = None, shape: str | None = None) -> None:
    """Add `--model` and the options of a run; `shape` describes the default of `--shape`."""
    add_option(parser, "--model", metavar="SPEC", default=default, required=default is None, help=SPEC)
    add_run(parser, shape=shape)


def add_run(parser: argparse.ArgumentParser, *, shape: str | None = None) -> None:
    """Add the options of a run; `shape` describes how the command chooses the shape without `--shape`."""
    group = parser.add_argument_group("options of the run")
    address = "address of the OpenAI-compatible server (default: OPENAI_BASE_URL, else https://api.openai.com/v1)"
    temperature = "sampling temperature (default 0.8 for the embedded model, otherwise 0.6)"
    limit = "token limit of one completion (default 512 for the embedded model, otherwise 4096)"
    add_option(group, "--base-url", metavar="URL", help=address)
    add_option(group, "--temperature", type=float, metavar="T", help=temperature)
    add_option(group, "--max-tokens", type=int, metavar="N", help=limit)
    add_top_k(group)
    add_seed(group, help="seed of the sampling")
    add_concurrency(group)
    about = "a step is a whole completion (sequential) or a part of one thought (streaming)"
    about += "" if shape is None else f" (default: {shape})"
    default = "sequential" if shape is None else None
    add_option(group, "--shape", choices=("sequential", "streaming"), default=default, help=about)
    extend = "how a sequential run continues after a step"
    choices = ("refine", "wait", "effort", "cascade", "vote", "branch")
    add_option(group, "--extend", choices=choices, default="refine", help=extend)
    add_option(group, "--cascade", metavar="SPEC", help="the stronger model for --extend cascade")
    branching = "where --extend branch begins a sample: eager[:BITS] or entropy-gated[:BITS[:WIDTH]] (default eager)"
    add_option(group, "--branching", metavar="NAME", help=branching)
    splitter = "where a streaming step ends: paragraph, sentence or tokens:N (default paragraph)"
    add_option(group, "--splitter", metavar="NAME", help=splitter)
    grader = "how answers are graded: exact, number, choice, math, json or module:function"
    add_option(group, "--grader", default="exact", metavar="NAME", help=grader)
    prompts = "general, opened (the chat template opens the thought), embedded or a plug-in's (default: by the model)"
    add_option(group, "--prompts", metavar="NAME", help=prompts)
    add_thought(group, default="by the prompts")
    exits = "folder of layer exits for hf:PATH, as `exits train` writes it: sure tokens leave the network early"
    add_option(group, "--exits", type=folder, metavar="DIR", help=exits)
    leave = "when a token leaves: softmax, saturation, classifier or entropy (default: the certified one)"
    add_option(group, "--leave", metavar="MEASURE[@NUMBER]", help=leave)
    add_loading(group)


def add_top_k(group: argparse._ActionsContainer) -> None:
    """Add `--top-k`."""
    about = "log-probabilities for each token; fewer if the server gives no more"
    add_option(group, "--top-k", default=20, metavar="K", help=about)


def add_loading(group: argparse._ActionsContainer) -> None:
    """Add `--dtype` and `--device`."""
    add_option(group, "--dtype", metavar="NAME", default=DTYPE, help="precision of a model in Hugging Face form")
    add_option(group, "--device", metavar="NAME", default=DEVICE, help="its device, for example cuda; tested on cpu")


def add_thought(group: argparse._ActionsContainer, *, default: str) -> None:
    """Add `--thought`."""
    thought = (
        "how the model marks its thought: think, think-opened, harmony, gemma, mistral, …; or two tags, OPEN CLOSE; or"
        " until:CUE for a thought without tags that ends where CUE begins the answer, for example until:Answer:"
    )
    add_option(group, "--thought", metavar="FORMAT", help=f"{thought} (default: {default})")


def add_rule(parser: argparse._ActionsContainer) -> None:
    """Add `--rule` and `--probe-every`."""
    rule = "stop by another rule of `evaluate`, such as deer:0.95, answer-convergence:3 or always-2-steps"
    add_option(parser, "--rule", metavar="NAME", help=rule)
    every = (
        "steps of a stream from one look of the rule at an answer to the next, as a number or a range; in a range, wide"
        " while the answers change (default 1-8)"
    )
    add_option(parser, "--probe-every", metavar="N|A-B", help=every)


def live_rule(options: argparse.Namespace) -> LiveRule | None:
    """The rule of `add_rule`; None if there is none."""
    from justenough.errors import InputError
    from justenough.rules.live import open_live

    if options.rule is None:
        if options.probe_every is not None:
            raise InputError("--probe-every is for a rule", hint="give --rule NAME")
        return None
    return open_live(options.rule, options.probe_every)


def open_traces(options: argparse.Namespace) -> TraceFile:
    """The traces of the file. It is read again on each pass and is never held in memory."""
    from justenough.trace.files import TraceFile, is_parquet

    if str(options.traces) == "-":
        options.traces = _copy_of_stdin()
    is_parquet(options.traces)  # Raises if there is no such file.
    return TraceFile(options.traces, skip_bad=options.skip_bad)


def _copy_of_stdin() -> Path:
    """A file with standard input, which can be read again; it is deleted when the process ends."""
    import atexit
    import shutil
    import tempfile

    with tempfile.NamedTemporaryFile(prefix="stdin-", delete=False) as file:
        atexit.register(Path(file.name).unlink, missing_ok=True)
        shutil.copyfileobj(sys.stdin.buffer, file)
    return Path(file.name)


def say_skipped(traces: TraceFile | LoadResult) -> None:
    """Report on stderr how many lines of a file were skipped while it was read."""
    from justenough.cli.terminal import say
    from justenough.stats.text import counted

    if bad := traces.bad:
        say(f"skipped {counted(len(bad), 'bad line')}; the first is line {bad[0].line}: {bad[0].reason}")


def add_unit(parser: argparse._ActionsContainer) -> None:
    """Add `--unit`."""
    add_option(parser, "--unit", choices=("tokens", "calls"), default="tokens", help="what the budget counts")


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
