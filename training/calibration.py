"""Writes the calibration that ships with the embedded model: `python -m training.calibration`.

It is the entropy mean over 300 problems of the calibration split, with all four steps, in the sequential shape.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from justenough.calibration.calibration import calibrate
from justenough.files import write_text
from justenough.grading import Exact, read_tasks
from justenough.runner import Runner, RunSettings
from justenough.runner.collect import run_all
from justenough.toy.backend import EmbeddedBackend
from justenough.trace import Trace

PROBLEMS: Final = 300
PATH: Final = Path(__file__).parent.parent / "src/justenough/toy/models/embedded.calibration.json"


async def traces() -> list[Trace]:
    """The traces of the calibration split, with all steps."""
    backend = EmbeddedBackend()
    try:
        runner = Runner(backend, RunSettings(), grader=Exact())
        problems = read_tasks("arithmetic-calibration", limit=PROBLEMS)
        return [run.trace for run in await run_all(runner, problems, concurrency=backend.concurrency)]
    finally:
        await backend.close()


def main() -> None:
    """Collect traces, calibrate on them, and write the file."""
    calibration = calibrate(asyncio.run(traces()))
    write_text(PATH, calibration.dumps())
    print(f"{PATH.name}: {calibration.method} {calibration.threshold:.4f} bits on {calibration.n} examples")


if __name__ == "__main__":
    main()
