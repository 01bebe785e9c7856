"""`justenough import`.

formats (see docs/how-to/import-traces.md):
  auto        the format that the file looks like
  justenough  exchange JSONL or Parquet
  openai      chat and text completions, Batch API output, saved chunks and raw server-sent events
  responses, vllm, sglang, llamacpp, ollama, gemini
              replies of these APIs and engines
  log         records with a request and its response, such as those of LiteLLM
  langfuse, langsmith
              exported generations and runs
  inspect     logs of Inspect, JSON or .eval
  deepconf, lm-eval
              results with confidences, or with log-likelihoods of choices; the signal is not an entropy
  records     answer records: one row for each answer; the signal is `1 - mean_token_prob`

Good lines are kept. Bad lines are reported with file and line number. Both are counted.
"""

from __future__ import annotations

import argparse
from itertools import chain
from typing import TYPE_CHECKING

from justenough.cli import arguments
from justenough.cli.paths import IMPORT, input_file, name_or_file
from justenough.cli.terminal import print_json, say, show
from justenough.stats.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from justenough.trace import Json

_FORMATS = (
    *("auto", "justenough", "openai", "responses", "vllm", "sglang", "llamacpp", "ollama", "gemini"),
    *("log", "langfuse", "langsmith", "inspect", "deepconf", "lm-eval", "records"),
)


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "file", metavar="FILE", type=input_file, help="the file to convert, also .gz or .zst; - is stdin"
    )
    option = arguments.add_option
    option(parser, "--format", choices=_FORMATS, default="auto", metavar="NAME", help="format of the file")
    model = "import only this model, or all; if the file names one model or none, this is its name"
    option(parser, "--model", metavar="NAME", help=model)
    option(parser, "--then", metavar="NAME", help="records: take the answers of this model as step 2")
    tasks = "replies: a task file with the right answers by id, custom_id or problem"
    option(parser, "--tasks", type=name_or_file, metavar="FILE", help=tasks)
    split = "replies: divide the thought into the steps of a stream: paragraph, sentence or tokens:N"
    option(parser, "--split", metavar="NAME", help=split)
    option(parser, "--grader", default="exact", metavar="NAME", help="how answers without a grade are graded")
    option(parser, "--out", type=IMPORT, required=True, metavar="FILE", help="FILE.parquet or FILE.jsonl")
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Convert the file."""
    from justenough.errors import InputError
    from justenough.importing import ImportOptions, imported
    from justenough.importing.opening import STANDARD_INPUT
    from justenough.trace import Trace
    from justenough.trace.files import BadLine, write_traces

    name = STANDARD_INPUT if str(options.file) == "-" else str(options.file)
    settings = ImportOptions(
        model=options.model,
        then=options.then,
        tasks=options.tasks,
        split=options.split,
        grader=options.grader,
        note=lambda remark: say(f"{name}: {remark}"),
    )
    bad: list[BadLine] = []

    def good() -> Iterator[Trace]:
        for item in imported(options.file, format=options.format, options=settings):
            if isinstance(item, Trace):
                yield item
            else:
                bad.append(item)

    traces = good()
    if (first := next(traces, None)) is not None:
        kept = write_traces(chain([first], traces), options.out)
    bad.sort()
    for line in bad[:20]:
        say(f"{name}:{line.line}: {line.reason}")
    if len(bad) > 20:
        say(f"… and {len(bad) - 20} more")
    if first is None:
        why = f"; the first: {bad[0].reason}" if bad else ""
        raise InputError(
            f"{name} has no trace that can be imported ({counted(len(bad), 'bad line')}){why}",
            hint="mend it, or choose another --format",
        )
    if options.json:
        bad_lines: list[Json] = [{"line": line.line, "reason": line.reason} for line in bad]
        counts: dict[str, Json] = {"kept": kept, "bad": len(bad)}
        print_json({"out": str(options.out), **counts, "bad_lines": bad_lines})
    else:
        show(f"{options.out}: {counted(kept, 'trace')} kept, {counted(len(bad), 'bad line')}")
    return 0
