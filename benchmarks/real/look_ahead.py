"""Questions, right texts and figures for AdaDec on a real model; the commands are in docs/explanation/systems.md.

    python -m benchmarks.real.look_ahead FOLDER
    python -m benchmarks.real.look_ahead FOLDER --model MODEL --threshold BITS --out FILE

The first command writes `right.jsonl` (200 questions with right answers in one sentence, as traces, to learn the
threshold from), `rest.jsonl` (the other questions, to measure on) and the prompts as a plug-in. The second compares
`greedy.parquet` with `adadec.parquet` in FOLDER. With `--model` it reads the answers of AdaDec again, and counts the
positions above the threshold, and those where the chosen token is not the most likely one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.real.capitals import task_lines
from benchmarks.real.exit_texts import conversation
from benchmarks.real.prompts import SENTENCE, plugin
from justenough.files import write_text
from justenough.stats import paired_bootstrap
from justenough.trace import Trace
from justenough.trace.files import read_traces

LEARNED_ON: Final = 200
"""The first questions; answers of the model to the same ones are in `smollm2-135m.capitals.sequential.parquet`."""


def files() -> dict[str, list[dict[str, Any]]]:
    """The rows of both files."""
    rows = [json.loads(line) for line in task_lines(1000, seed=0)]
    return {"right": [_trace(row) for row in rows[:LEARNED_ON]], "rest": rows[LEARNED_ON:]}


def _trace(row: dict[str, str]) -> dict[str, Any]:
    text = conversation(row)["messages"][1]["content"]
    step = {"text": text, "answer": text, "correct": True, "tokens": 0}
    about = {name: row[name] for name in ("id", "problem", "target")}
    return {**about, "model": "right answers", "prompts": SENTENCE.prompts.to_json(), "steps": [step]}


def compared(greedy: Sequence[Trace], adadec: Sequence[Trace]) -> dict[str, object]:
    """Accuracy and tokens of AdaDec against plain greedy decoding on the same problems."""
    if [trace.id for trace in greedy] != [trace.id for trace in adadec]:
        raise ValueError("the two files are not about the same problems")
    plain, ahead = ([trace.steps[0] for trace in each] for each in (greedy, adadec))
    right, reference = (np.array([step.is_correct for step in each], dtype=float) for each in (ahead, plain))
    return {
        "problems": len(plain),
        "greedy": {"right": int(reference.sum()), "tokens": sum(step.tokens for step in plain)},
        "adadec": {
            "right": int(right.sum()),
            "tokens": sum(step.tokens for step in ahead),
            "discarded": sum(step.discarded for step in ahead),
        },
        "change": paired_bootstrap(right - reference)._asdict(),
        "texts differ": sum(one.text != other.text for one, other in zip(ahead, plain, strict=True)),
        "harmed": int((reference > right).sum()),
        "rescued": int((right > reference).sum()),
    }


def pauses(model: Path, traces: Sequence[Trace], threshold: float) -> dict[str, int]:
    """Positions of the answers, those above the threshold, and those whose token is not the most likely one."""
    from justenough.backends.look_ahead import positions
    from justenough.backends.transformers import Checkpoint

    read = [replace(trace, steps=(replace(trace.steps[0], correct=True),)) for trace in traces]
    bits, first = positions(Checkpoint(model, prompts=None, thought=None, threads=1), read)
    return {"positions": len(bits), "above": int((bits > threshold).sum()), "changed": int((~first).sum())}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files, or the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, help="the model in Hugging Face form")
    parser.add_argument("--threshold", type=float, help="AdaDec's threshold in bits")
    parser.add_argument("--out", type=Path, help="write the figures of both runs here")
    options = parser.parse_args(argv)
    if (options.model is None) != (options.threshold is None):
        parser.error("--model and --threshold belong together")
    folder: Path = options.folder
    if options.out is not None:
        greedy, adadec = (list(read_traces(folder / f"{name}.parquet").traces) for name in ("greedy", "adadec"))
        value = compared(greedy, adadec)
        if options.model is not None:
            value["pauses"] = {"threshold": options.threshold, **pauses(options.model, adadec, options.threshold)}
        write_text(options.out, json.dumps(value, indent=2) + "\n")
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files().items():
        write_text(folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        print(f"{len(rows)} rows in {folder / name}.jsonl")
    plugin(folder / "plugin")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
