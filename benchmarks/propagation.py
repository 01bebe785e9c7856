"""Measures the cost of CALM's state propagation on a frozen backbone: `python -m benchmarks.propagation`.

Later tokens attend to a token that left early, also in the layers above. These layers use the state in which the token
left (CALM), or the true state that they would have computed, which saves nothing. The benchmark counts the answers of
one step that differ from those of the whole network, on 150 problems of the calibration split.
"""

from __future__ import annotations

import asyncio
from typing import Final

from torch import Tensor

from benchmarks.live_rules import CHECKPOINT
from benchmarks.timing import write
from justenough.backends.layers.backend import LayerExitBackend
from justenough.backends.layers.leaving import Calm, Leaving
from justenough.backends.layers.network import LayeredNetwork, Place
from justenough.grading import Exact, Problem, read_tasks
from justenough.runner import Runner, RunSettings
from justenough.runner.collect import run_all
from justenough.trace import Step

PROBLEMS: Final = 150
ROWS: Final = 64


class TrueStates(LayeredNetwork):
    """Runs the layers above too, only for their states."""

    def propagate(self, behind: int, hidden: Tensor, place: Place) -> None:
        """Compute the states of the layers above."""
        for number in range(behind + 1, self.layers + 1):
            hidden = self.layer(number, hidden, place)


async def answers(leaving: Leaving | None, problems: list[Problem], *, true_states: bool) -> list[Step]:
    """The first step of each problem."""
    backend = LayerExitBackend(CHECKPOINT, leaving, concurrency=ROWS, threads=1)
    if true_states:
        network = backend.layered.network
        backend.layered = TrueStates(network, backend.layered.ramps, rows=ROWS)
    try:
        runner = Runner(backend, RunSettings(max_steps=1), grader=Exact())
        return [run.trace.steps[0] for run in await run_all(runner, problems, concurrency=ROWS)]
    finally:
        await backend.close()


def main() -> None:
    """Count the differences at three margins, with both kinds of state."""
    problems = read_tasks("arithmetic-calibration", limit=PROBLEMS)
    whole = [step.answer for step in asyncio.run(answers(None, problems, true_states=False))]
    results: dict[str, dict[str, int]] = {}
    print(f"{PROBLEMS} problems: answers that differ from the whole network's")
    for margin in (0.999, 0.99, 0.9):
        counts = {
            name: sum(
                step.answer != answer
                for step, answer in zip(
                    asyncio.run(answers(Calm(margin), problems, true_states=name == "true")), whole, strict=True
                )
            )
            for name in ("handed on", "true")
        }
        results[str(margin)] = counts
        print(
            f"margin {margin}: {counts['handed on']} with the propagated state, {counts['true']} with the true states"
        )
    write("propagation", results)


if __name__ == "__main__":
    main()
