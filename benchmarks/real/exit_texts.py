"""Texts and problems for layer exits on questions of fact.

    python -m benchmarks.real.lora --model CACHE/models/SmolLM2-135M-Instruct.Q4_1.gguf --out FOLDER/smollm2
    python -m benchmarks.real.exit_texts FOLDER

Writes `texts.jsonl` (questions with right answers, to train on), `certify.jsonl` and `test.jsonl` (30 other questions
each), and the prompts as a plug-in. The commands of docs/explanation/systems.md then run in FOLDER, with FOLDER/plugin
and this repository on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.real.capitals import task_lines
from benchmarks.real.prompts import SENTENCE, plugin
from justenough.files import write_text

QUESTIONS: Final = 30
_ASK: Final = "Which country has the capital "


def conversation(row: Mapping[str, str]) -> dict[str, list[dict[str, str]]]:
    """A question of the task with its right answer in one sentence."""
    problem, target = row["problem"], row["target"]
    if row["family"] == "capital":
        answer = f"The capital of {row['id'].partition('-of-')[2]} is {target}."
    else:
        answer = f"{problem.removeprefix(_ASK).rstrip('?')} is the capital of {target}."
    question = SENTENCE.prompts.ask.format(problem=problem)
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def files() -> dict[str, list[dict[str, Any]]]:
    """The rows of each file."""
    rows = [json.loads(line) for line in task_lines(1000, seed=7)]
    test, certify, rest = rows[:QUESTIONS], rows[QUESTIONS : 2 * QUESTIONS], rows[2 * QUESTIONS :]
    return {"test": test, "certify": certify, "texts": [dict(conversation(row)) for row in rest]}


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files().items():
        write_text(folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        print(f"{len(rows)} rows in {folder / name}.jsonl")
    plugin(folder / "plugin")


if __name__ == "__main__":
    main()
