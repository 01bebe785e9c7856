"""Stop or extend on recorded pairs: the same model with thinking off and on, and a small model before a large one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from benchmarks.recorded.data import PAPERS, STAND_IN, Records, pair_table
from justenough.calibration.thresholds import METHODS, Method, RiskControlled
from justenough.evaluation import Figures, Table
from justenough.evaluation.figures import figures_of, outcomes
from justenough.gate import GateSettings

RISK: Final = 0.02
SETTINGS: Final = GateSettings(signal=STAND_IN, decide="first", max_steps=2)


class Pair(NamedTuple):
    """A model and the one that extends its answers."""

    first: str
    then: str

    @property
    def name(self) -> str:
        """`FIRST → THEN`."""
        return f"{self.first} → {self.then}"

    @property
    def effort(self) -> bool:
        """Whether both are the same model, so their tokens can be added."""
        return self.then == f"{self.first}-think"


CASCADES: Final = (
    Pair("Qwen2.5-3B-Instruct", "Qwen2.5-32B-Instruct"),
    Pair("Qwen2.5-7B-Instruct", "Qwen2.5-32B-Instruct"),
    Pair("Qwen3-4B", "Qwen3-30B-A3B-think"),
    Pair("gemma-2-9b-it", "gemma-2-27b-it"),
    Pair("gpt-4o-mini-2024-07-18", "gpt-4o-2024-08-06"),
    Pair("Phi-3-mini-128k-instruct", "Phi-3-medium-128k-instruct"),
)


STUDIED: Final = (Pair("Qwen3-8B", "Qwen3-8B-think"), Pair("Qwen3-30B-A3B", "Qwen3-30B-A3B-think"))
"""The pairs that every part studies."""


def pairs(records: Records) -> list[Pair]:
    """Every effort pair in the records, then the cascades."""
    models = records.by_model
    effort = [Pair(name, f"{name}-think") for name in models if f"{name}-think" in models]
    return effort + [pair for pair in CASCADES if pair.first in models and pair.then in models]


def methods(*, max_harm: float = RISK) -> dict[str, Method]:
    """The paper's four methods and the certified one."""
    return {**{name: METHODS[name]() for name in PAPERS}, "risk": RiskControlled(max_harm=max_harm)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """A method's threshold on a pair: fitted on one half of the problems, applied to the other half, in turn."""

    thresholds: tuple[float | None, ...]
    reasons: tuple[str, ...]
    figures: Figures
    calls_saved: float
    """Share of step 2's tokens that were not generated; also meaningful for a cascade."""


def stopping(table: Table, method: Method, *, resamples: int, seed: int = 0) -> Stopping:
    """The effect of a method, cross-fitted over two halves."""
    half = np.zeros(len(table), dtype=bool)
    half[np.random.default_rng(seed).permutation(len(table))[: len(table) // 2]] = True
    stops = np.zeros(len(table), dtype=np.int64)
    fitted = []
    for held in (half, ~half):
        outcome = method.fit(table.rows(~held).examples())
        fitted.append(outcome)
        at = GateSettings(
            signal=SETTINGS.signal, decide="first", max_steps=SETTINGS.max_steps, threshold=outcome.threshold
        )
        stops[held] = table.rows(held).stops(at)
    done = outcomes(table, stops)
    return Stopping(
        thresholds=tuple(outcome.threshold for outcome in fitted),
        reasons=tuple(outcome.reason for outcome in fitted),
        figures=figures_of(table, {"": done}, margin=0.01, seed=seed, resamples=resamples)[""],
        calls_saved=float(table.last_only[stops == 0].sum() / table.last_only.sum()),
    )


def oracle_stops(table: Table) -> float:
    """Share of problems where stopping loses nothing: all except those where only step 2 is right."""
    return float((table.correct[:, 0] | ~table.correct[:, -1]).mean())


def all_stoppings(records: Records, *, resamples: int) -> Mapping[Pair, Mapping[str, Stopping]]:
    """The effect of every method on every pair."""
    result: dict[Pair, dict[str, Stopping]] = {}
    for pair in pairs(records):
        table = pair_table(records, *pair)
        result[pair] = {name: stopping(table, method, resamples=resamples) for name, method in methods().items()}
    return result
