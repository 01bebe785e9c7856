"""`justenough import`.

formats:
  justenough  exchange JSONL or Parquet
  openai      responses of chat and text completions with logprobs: one JSON value, JSON lines, or Batch API output
  inspect     JSON logs of Inspect whose model events have logprobs
  records     answer records: one row for each answer; the signal is `1 - mean_token_prob`

Good lines are kept. Bad lines are reported with file and line number. Both are counted.
"""

from __future__ import annotations

import argparse
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from justenough.cli import arguments
from justenough.cli.terminal import print_json, say, show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from justenough.trace import Json


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("file", metavar="FILE", type=Path, help="the file to convert")
    option = arguments.add_option
    formats = ("justenough", "openai", "inspect", "records")
    option(parser, "--format", choices=formats, required=True, help="format of the file")
    model = "records: import only this model; openai: use this name for the model"
    option(parser, "--model", metavar="NAME", help=model)
    option(parser, "--then", metavar="NAME", help="records: take the answers of this model as step 2")
    option(parser, "--tasks", metavar="FILE", help="openai: a task file with the right answers by custom_id or id")
    option(parser, "--grader", default="exact", metavar="NAME", help="openai: how answers are graded")
    option(parser, "--out", type=Path, required=True, metavar="FILE", help="FILE.parquet or FILE.jsonl")
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Convert the file."""
    from justenough.errors import InputError
    from justenough.importing import ImportOptions, imported
    from justenough.trace import Trace
    from justenough.trace.files import BadLine, write_traces

    settings = ImportOptions(model=options.model, then=options.then, tasks=options.tasks, grader=options.grader)
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
        say(f"{options.file}:{line.line}: {line.reason}")
    if len(bad) > 20:
        say(f"… and {len(bad) - 20} more")
    if first is None:
        raise InputError(
            f"{options.file} has no line of the format {options.format} ({len(bad)} bad lines)",
            hint="choose another --format",
        )
    if options.json:
        bad_lines: list[Json] = [{"line": line.line, "reason": line.reason} for line in bad]
        counts: dict[str, Json] = {"kept": kept, "bad": len(bad)}
        print_json({"out": str(options.out), **counts, "bad_lines": bad_lines})
    else:
        show(f"{options.out}: {kept} traces kept, {len(bad)} bad lines")
    return 0
