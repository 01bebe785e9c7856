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
from pathlib import Path
from typing import TYPE_CHECKING

from justenough.cli import arguments
from justenough.cli.terminal import print_json, say, show

if TYPE_CHECKING:
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
    from justenough.importing import ImportOptions, import_file
    from justenough.trace.files import write_traces

    settings = ImportOptions(model=options.model, then=options.then, tasks=options.tasks, grader=options.grader)
    loaded = import_file(options.file, format=options.format, options=settings)
    for bad in loaded.bad[:20]:
        say(f"{options.file}:{bad.line}: {bad.reason}")
    if len(loaded.bad) > 20:
        say(f"… and {len(loaded.bad) - 20} more")
    if not loaded.traces:
        raise InputError(
            f"{options.file} has no line of the format {options.format} ({len(loaded.bad)} bad lines)",
            hint="choose another --format",
        )
    write_traces(loaded.traces, options.out)
    if options.json:
        bad_lines: list[Json] = [{"line": bad.line, "reason": bad.reason} for bad in loaded.bad]
        counts: dict[str, Json] = {"kept": len(loaded.traces), "bad": len(loaded.bad)}
        print_json({"out": str(options.out), **counts, "bad_lines": bad_lines})
    else:
        show(f"{options.out}: {len(loaded.traces)} traces kept, {len(loaded.bad)} bad lines")
    return 0
