"""`justenough import`."""

from __future__ import annotations

import argparse
from pathlib import Path

from justenough.cli import arguments
from justenough.cli.terminal import print_json, say

EPILOG = """\
formats:
  justenough  exchange JSONL or Parquet
  openai      chat and text completion responses with logprobs; one JSON, JSON lines, or Batch-API output
  inspect     logs of Inspect (JSON) whose model events carry logprobs
  records     answer records: one row an answer, `1 - mean_token_prob` as a stand-in signal

Good lines are kept; bad ones are reported with file and line number, and both are counted.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument("--format", choices=("justenough", "openai", "inspect", "records"), required=True)
    parser.add_argument("--model", metavar="NAME", help="records: only this model; openai: override the model's name")
    parser.add_argument("--then", metavar="NAME", help="records: the answers of this model as step 2 (effort, cascade)")
    parser.add_argument("--tasks", metavar="FILE", help="openai: targets by custom_id or id, to grade by")
    parser.add_argument("--grader", default="exact", metavar="NAME", help="openai: how to grade (default exact)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Import."""
    from justenough.errors import InputError
    from justenough.importing import ImportOptions, import_file
    from justenough.trace.files import write_traces

    wanted = ImportOptions(model=options.model, then=options.then, tasks=options.tasks, grader=options.grader)
    loaded = import_file(options.file, format=options.format, options=wanted)
    for bad in loaded.bad[:20]:
        say(f"{options.file}:{bad.line}: {bad.reason}")
    if len(loaded.bad) > 20:
        say(f"… and {len(loaded.bad) - 20} more")
    if not loaded.traces:
        raise InputError(
            f"{options.file} holds nothing that reads as {options.format} ({len(loaded.bad)} bad lines)",
            hint="is --format the right one?",
        )
    write_traces(loaded.traces, options.out)
    if options.json:
        print_json(
            {
                "out": str(options.out),
                "kept": len(loaded.traces),
                "bad": len(loaded.bad),
                "bad_lines": [{"line": bad.line, "reason": bad.reason} for bad in loaded.bad],
            }
        )
    else:
        say(f"{options.out}: {len(loaded.traces)} traces kept, {len(loaded.bad)} bad lines")
    return 0
