"""Certifies CALM's margins for the embedded model by Learn-then-Test: `python -m training.calm`.

The risk of a margin is the share of problems whose answer differs from that of the whole network, with the same
sampling noise. This is CALM's *textual consistency* (arXiv 2207.07061), applied to the answer. Margins are tested from
the most cautious down, on the calibration split, with one step for each problem at temperature 0.8. Nothing is
certified about further steps, other prompts or other temperatures. Another model (`--model FOLDER`) needs problems of
its own: `--tasks FILE --grader NAME`.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from justenough.backends.layers.backend import LayerExitBackend
from justenough.backends.layers.certificate import Scope, tokenizer_digest, write_certificates
from justenough.backends.layers.leaving import Calm, Leaving
from justenough.grading import Grader, Problem, open_grader, read_tasks
from justenough.runner import Runner, RunSettings
from justenough.runner.collect import run_all
from justenough.stats.learn_then_test import certify
from training.tokenizer import belongs_to

ROOT: Final = Path(__file__).parent.parent
MARGINS: Final = (0.9999, 0.9995, 0.999, 0.998, 0.995, 0.99, 0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""They are fixed before any of them is tested on the problems of `SEED`."""
LEVELS: Final = (0.02, 0.05, 0.1, 0.2)
TEMPERATURE: Final = 0.8
STEPS: Final = 1
SEED: Final = 1
"""Seed of the problems and of the noise. Recipes are tried with seed 0."""
CONFIDENCE: Final = 0.95
ROWS: Final = 32


async def answers(
    folder: Path, leaving: Leaving | None, problems: list[Problem], grader: Grader
) -> tuple[list[str | None], float]:
    """The answer of one step for each problem, and the mean number of layers for a token."""
    backend = LayerExitBackend(folder, leaving, concurrency=ROWS, threads=1)
    try:
        runner = Runner(backend, RunSettings(max_steps=STEPS, temperature=TEMPERATURE, seed=SEED), grader=grader)
        steps = [run.trace.steps[0] for run in await run_all(runner, problems, concurrency=ROWS)]
    finally:
        await backend.close()
    layers = sum(int(str(step.extra["layers"])) for step in steps)
    return [step.answer for step in steps], layers / sum(step.tokens for step in steps)


class Losses:
    """The losses of each margin, computed at the first use."""

    def __init__(self, folder: Path, problems: list[Problem], grader: Grader) -> None:
        self.folder, self.problems, self.grader = folder, problems, grader
        self.whole, _ = asyncio.run(answers(folder, None, problems, grader))
        self._known: dict[float, NDArray[np.float64]] = {}

    def sequence(self) -> Iterator[tuple[float, NDArray[np.float64]]]:
        """The margins from the most cautious down, with their losses (n,)."""
        for margin in MARGINS:
            if margin not in self._known:
                early, layers = asyncio.run(answers(self.folder, Calm(margin), self.problems, self.grader))
                differs = np.array([mine != whole for mine, whole in zip(early, self.whole, strict=True)])
                self._known[margin] = differs.astype(np.float64)
                print(
                    f"margin {margin}: {layers:.2f} layers per token, {int(differs.sum())} answers differ", flush=True
                )
            yield margin, self._known[margin]


def main(arguments: Sequence[str] | None = None) -> None:
    """Certify each level and write the certificates next to the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "embedded", help="folder with off-ramps")
    parser.add_argument("--problems", type=int, default=600)
    parser.add_argument("--tasks", help="JSON Lines of problems; required for a model of another tokenizer")
    parser.add_argument("--grader", default="exact", help="how the answer is found in the text")
    options = parser.parse_args(arguments)
    if options.tasks is None and not belongs_to(options.model):
        parser.error(f"{options.model} has a tokenizer of its own: give problems of its task by --tasks FILE")
    problems = read_tasks(options.tasks or "arithmetic-calibration", limit=options.problems, seed=SEED)
    losses = Losses(options.model, problems, open_grader(options.grader))
    certificates = []
    for level in LEVELS:
        certificate = certify(losses.sequence(), level=level, confidence=CONFIDENCE)
        if certificate is None:
            print(f"risk at most {level}: no margin passes")
            continue
        certificates.append(certificate)
        print(f"risk at most {level}: margin {certificate.setting}, {certificate.risk:.1%} of {certificate.n} differ")
    scope = Scope(
        task=options.tasks or "arithmetic",
        temperature=TEMPERATURE,
        steps=STEPS,
        prompt=LayerExitBackend(options.model, None).prompts.ask,
        tokenizer=tokenizer_digest(options.model),
    )
    write_certificates(options.model, certificates, scope=scope)


if __name__ == "__main__":
    main()
