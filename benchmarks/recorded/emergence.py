"""For which models the signal separates right from wrong: thinking, instruction-tuned and base models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np

from benchmarks.recorded.data import Records
from justenough.evaluation.diagnosis import Diagnosis, diagnose
from justenough.stats import auroc, cohens_d
from justenough.trace import Trace

KINDS: Final = ("thinking", "thinking off", "instruct", "base")
_NAMED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "deepseek-reasoner": "thinking",
        "Phi-4-reasoning": "thinking",
        "grok-3-mini-beta": "thinking",
        "Llama-3.1-Nemotron-Nano-4B-v1.1": "thinking",
        "Llama-3.1-Nemotron-Nano-8B-v1": "thinking",
        "Mixtral-8x7B-v0.1": "base",
    }
)

EXPECTED: Final[Mapping[tuple[str, bool], tuple[str, str]]] = MappingProxyType(
    {
        ("Qwen3-30B-A3B-think", True): ("1.165", "0.799"),
        ("Qwen3-8B-think", True): ("1.004", "0.774"),
        ("Qwen3-30B-A3B", True): ("0.865", "0.735"),
        ("Qwen3-8B", True): ("0.259", "0.562"),
        ("Llama-3.2-3B-Instruct-Turbo", True): ("0.077", "0.516"),
        ("Qwen3-30B-A3B-Base", True): ("-0.009", "0.505"),
        ("Qwen3-8B-think", False): ("0.765", "0.732"),
    }
)
"""Model and whether unanswered rows are left out → the known d and AUROC on the 6,016 rows."""


ROWS: Final = 6016
"""Number of questions of each model behind those figures; there are no known figures for other rows."""


class Known(NamedTuple):
    """A known figure and the measured one."""

    model: str
    answered_only: bool
    d: str
    auroc: str
    expected: tuple[str, str]
    rows: int

    @property
    def same(self) -> bool | None:
        """Whether both agree to the printed digits; None if the rows are different ones."""
        return (self.d, self.auroc) == self.expected if self.rows == ROWS else None


def kind_of(model: str) -> str:
    """The kind of a model's post-training; for a hybrid model, whether thinking was on."""
    if model in _NAMED:
        return _NAMED[model]
    if model.endswith("-think"):
        return "thinking"
    if "-Base" in model:
        return "base"
    return "thinking off" if model.startswith("Qwen3-") else "instruct"


def separation_of(traces: Sequence[Trace], *, answered_only: bool) -> tuple[float | None, float | None]:
    """d and AUROC of step 1's signal; a missing answer counts as wrong, or is left out."""
    steps = [trace.steps[0] for trace in traces if not (answered_only and trace.steps[0].is_unanswered)]
    values = np.array([np.nan if step.uncertainty is None else step.uncertainty for step in steps], dtype=np.float64)
    right = np.array([step.is_correct for step in steps], dtype=bool)
    usable = np.isfinite(values)
    return cohens_d(values[usable & right], values[usable & ~right]), auroc(
        values[usable & right], values[usable & ~right]
    )


def known_figures(records: Records) -> list[Known]:
    """The known and the measured figures of the models in the records."""
    figures = []
    for (model, answered_only), expected in EXPECTED.items():
        if model in records.by_model:
            d, area = separation_of(records.by_model[model], answered_only=answered_only)
            shown = ("–" if d is None else f"{d:.3f}", "–" if area is None else f"{area:.3f}")
            figures.append(Known(model, answered_only, *shown, expected, len(records.by_model[model])))
    return figures


def diagnoses(records: Records, *, resamples: int) -> dict[str, Diagnosis | str]:
    """The diagnosis of every model on its answered rows, or the reason why it has none."""
    result: dict[str, Diagnosis | str] = {}
    for model, traces in records.by_model.items():
        diagnosis = diagnose(traces, answered_only=True)
        result[model] = diagnosis if diagnosis.measured else "no signal"
    return result


def by_kind(by_model: Mapping[str, Diagnosis | str]) -> dict[str, dict[str, float | int]]:
    """For each kind: the number of models, how many separate, and the median d and AUROC."""
    rows: dict[str, dict[str, float | int]] = {}
    for kind in KINDS:
        members = [item for model, item in by_model.items() if kind_of(model) == kind and isinstance(item, Diagnosis)]
        ds = [item.separation.cohens_d.value for item in members if item.separation.cohens_d is not None]
        areas = [item.separation.auroc.value for item in members if item.separation.auroc is not None]
        verdicts = [item.separation.verdict for item in members]
        rows[kind] = {
            "models": len(members),
            **{verdict: verdicts.count(verdict) for verdict in ("separates", "weak", "absent", "cannot tell")},
            "median_d": float(np.median(ds)) if ds else float("nan"),
            "median_auroc": float(np.median(areas)) if areas else float("nan"),
        }
    return rows
