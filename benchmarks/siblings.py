"""Evaluates the sibling models with all steps; the demo shows only step 1: `python -m benchmarks.siblings`.

All four steps of each model on 600 held-out problems: does the signal separate, and what would the paper's gate cost?
"""

from __future__ import annotations

import asyncio

from benchmarks.timing import write
from justenough.cli.tables import evaluation_text
from justenough.evaluation import evaluate
from justenough.grading import Exact, read_tasks
from justenough.runner import Runner, RunSettings
from justenough.runner.collect import run_all
from justenough.toy.backend import EmbeddedBackend
from justenough.toy.notation import MODELS
from justenough.trace import Trace

PROBLEMS = 600


async def traces(name: str) -> list[Trace]:
    """The traces of one model, with all steps."""
    backend = EmbeddedBackend(name)
    try:
        runner = Runner(backend, RunSettings(), grader=Exact())
        problems = read_tasks("arithmetic", limit=PROBLEMS)
        return [run.trace for run in await run_all(runner, problems, concurrency=backend.concurrency)]
    finally:
        await backend.close()


def main() -> None:
    """Evaluate each model."""
    results = {}
    for name in MODELS:
        evaluation = evaluate(asyncio.run(traces(name)))
        print(f"\n{evaluation_text(evaluation)}")
        results[name] = evaluation.to_json()
    write("siblings", results)


if __name__ == "__main__":
    main()
