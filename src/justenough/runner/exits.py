"""Certifies the thresholds of layer exits by Learn-then-Test, as CALM does (arXiv 2207.07061).

The loss of a problem is 1 if its answer differs from that of the whole network with the same sampling noise
(`answers`, CALM's textual consistency), or if a right answer becomes wrong (`harm`, its risk consistency). Thresholds
are tested from the most cautious on, on problems of their own. Nothing is certified about other steps, prompts, tasks
or temperatures.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from justenough.backends.layers.certificate import Risk
from justenough.backends.layers.cost import Cost
from justenough.backends.layers.leaving import GRIDS, Leaving, rule_of
from justenough.errors import InputError, NotEnoughExamples
from justenough.grading import Grader, Problem
from justenough.runner import Runner, RunSettings
from justenough.runner.collect import run_all
from justenough.stats.learn_then_test import Certificate, certify
from justenough.trace import Step

if TYPE_CHECKING:
    from justenough.backends.layers.backend import LayerExitBackend


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What a threshold did on the problems, against the whole network."""

    threshold: float
    layers: float
    """Mean number of layers of a token."""
    layers_saved: float
    """Share of the layers of the whole network's tokens."""
    work_saved: float
    """The same share of the multiply-adds of matrices, with heads and propagated keys and values."""
    right: int
    differ: int
    """Problems with another answer."""
    harmed: int
    """Problems whose right answer became wrong."""


def check_size(n: int, *, level: float, confidence: float) -> None:
    """Raise `NotEnoughExamples` if n problems cannot certify a level even without any loss."""
    if not (0 < level < 1 and 0 < confidence < 1):
        raise InputError(f"level {level} at confidence {confidence}", hint="both lie between 0 and 1")
    if (needed := math.ceil(math.log(1 - confidence) / math.log(1 - level) - 1e-9)) > n:
        raise NotEnoughExamples(
            f"{n} problems cannot certify a risk of {level}: even without a loss, {needed} are needed",
            needed=needed - n,
            hint="give more problems, or allow a larger --max-harm",
        )


class ExitTrial:
    """Runs problems at the thresholds of a measure, each once and only if it is asked for; close it after use."""

    def __init__(
        self,
        backend: LayerExitBackend,
        problems: Sequence[Problem],
        *,
        grader: Grader,
        settings: RunSettings,
        report: Callable[[Tried], None] = lambda tried: None,
    ) -> None:
        if not problems:
            raise InputError("there is no problem to certify on", hint="give problems")
        self._backend, self._problems = backend, problems
        self._runner = Runner(backend, settings, grader=grader)
        self._report, self._loop = report, asyncio.Runner()
        self._cost = Cost.of(backend.checkpoint.network.config.to_dict())
        with ExitStack() as stack:
            stack.callback(self.close)
            self.whole, self._base = self._steps(None)
            """The last step of each problem in the whole network."""
            if not self._base[0]:
                raise InputError("no problem fits into the model's context", hint="give shorter problems")
            stack.pop_all()
        self._losses: dict[Leaving, dict[Risk, NDArray[np.float64]]] = {}
        self.tried: list[Tried] = []

    @property
    def right(self) -> int:
        """Problems that the whole network answers right."""
        return sum(step.is_correct for step in self.whole)

    def _steps(self, leaving: Leaving | None) -> tuple[list[Step], tuple[int, int, int]]:
        """The last steps, and the tokens, layers and heads that ran for them."""
        self._backend.use(leaving)
        work = self._backend.layered.work
        before = work.tokens, work.layers, work.heads
        runs = self._loop.run(run_all(self._runner, self._problems, concurrency=self._backend.concurrency))
        after = work.tokens, work.layers, work.heads
        tokens, layers, heads = (now - then for now, then in zip(after, before, strict=True))
        return [run.trace.steps[-1] for run in runs], (tokens, layers, heads)

    def losses(self, measure: str, risk: Risk) -> Iterator[tuple[float, NDArray[np.float64]]]:
        """The thresholds of a measure from the most cautious on, with the losses (n,) of the problems."""
        for threshold in GRIDS[measure]:
            leaving = rule_of(measure, threshold)
            if leaving not in self._losses:
                self._losses[leaving] = self._try(leaving, threshold)
            yield threshold, self._losses[leaving][risk]

    def _try(self, leaving: Leaving, threshold: float) -> dict[Risk, NDArray[np.float64]]:
        steps, (tokens, layers, heads) = self._steps(leaving)
        pairs = list(zip(steps, self.whole, strict=True))
        differ = np.array([mine.answer != whole.answer for mine, whole in pairs], dtype=np.float64)
        harm = np.array([whole.is_correct and not mine.is_correct for mine, whole in pairs], dtype=np.float64)
        work = self._cost.work(tokens=tokens, layers=layers, heads=heads)
        tried = Tried(
            threshold=threshold,
            layers=layers / max(tokens, 1),
            layers_saved=1 - layers / max(self._base[1], 1),
            work_saved=1 - work / max(self._base[0] * self._cost.whole, 1),
            right=sum(step.is_correct for step in steps),
            differ=int(differ.sum()),
            harmed=int(harm.sum()),
        )
        self.tried.append(tried)
        self._report(tried)
        return {"answers": differ, "harm": harm}

    def certify(self, measure: str, *, risk: Risk, level: float, confidence: float) -> Certificate | None:
        """The boldest threshold whose risk is at most `level`, if any passes."""
        return certify(self.losses(measure, risk), level=level, confidence=confidence)

    def close(self) -> None:
        """Close the backend."""
        self._loop.run(self._backend.close())
        self._loop.close()
