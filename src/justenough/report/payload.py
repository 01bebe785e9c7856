"""The data for the script of the page."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from justenough.evaluation.draws import Spread
from justenough.evaluation.figures import estimate_json
from justenough.gate import Action, Decision, Reason, replay
from justenough.report.budgetsheets import budget_payload
from justenough.report.data import PROBLEMS, Contents
from justenough.report.rulesheets import lacks_threshold
from justenough.report.words import accuracy_change, bits, method_words, outcome_words
from justenough.rules.rules import EntropyGate
from justenough.stats import Estimate
from justenough.trace import Json, Step, Trace

ROOM: Final = 1_800_000
"""Most characters of model output and entropies in the page; the steps of further problems are left out."""


def payload(contents: Contents) -> dict[str, Json]:
    """One JSON object."""
    evaluation, settings, table = contents.evaluation, contents.settings, contents.table
    return {
        "unit": contents.unit,
        "quantity": contents.quantity,
        "steps": table.steps,
        "margin": evaluation.margin,
        "scale": dict[str, Json](contents.scale._asdict()),
        "gate": {
            "threshold": settings.threshold,
            "decide": settings.decide,
            "patience": settings.patience,
            "minTokens": settings.min_tokens,
            "maxSteps": settings.max_steps,
        },
        "oracleSaving": evaluation.oracle_saving,
        "bits": [[value if np.isfinite(value) else None for value in row] for row in table.bits.tolist()],
        "correct": ["".join("1" if right else "0" for right in row) for row in table.correct],
        "spent": _rows(table.spent),
        # Used only if the signal is read off probes: tokens of all probes before the step.
        "probes": None if table.probes is None else _rows(table.probes),
        # Used only if the gate has a minimum of tokens.
        "generated": _rows(table.generated) if settings.min_tokens else None,
        "methods": [
            {
                "name": name,
                "label": method_words(name),
                "threshold": threshold,
                "outcome": outcome_words(evaluation.threshold_outcomes.get(name, "ok")),
                "chosen": name == evaluation.method,
            }
            for name, threshold in evaluation.thresholds.items()
        ],
        "histogram": [list[Json](entry) for entry in contents.histogram],
        "roc": [list[Json](place) for place in contents.roc],
        "reliability": [entry._asdict() | {"share": estimate_json(entry.share)} for entry in contents.reliability],
        "rules": [
            {
                "name": name,
                "kind": _kind(name),
                "accuracy": figures.accuracy,
                "change": _limits(accuracy_change(figures)),
                "saving": _limits(figures.saving),
            }
            for name, figures in evaluation.rules.items()
            if not lacks_threshold(contents, name)
        ],
        "draws": {
            "n": evaluation.draws.n,
            "savings": list(evaluation.draws.savings),
            "changes": list(evaluation.draws.changes),
            "mean": [evaluation.draws.saving.mean, evaluation.draws.accuracy_change.mean],
            "shown": [evaluation.gated.saving.value, evaluation.gated.accuracy_change.value]
            if evaluation.calibrated and evaluation.gated.saving
            else None,
        },
        "sizes": [
            {
                "n": row.n,
                "tau": _spread(row.threshold),
                "saving": _spread(row.saving),
                "change": _spread(row.accuracy_change),
                "none": row.none,
            }
            for row in contents.sizes
        ],
        "budget": budget_payload(contents),
        "families": [dict[str, Json](row._asdict()) for row in contents.families],
        "problems": problems(contents),
    }


def problems(contents: Contents) -> list[Json]:
    """The first problems with each step, and why the gate continued or stopped."""
    room = ROOM
    rows: list[Json] = []
    for trace in contents.traces[:PROBLEMS]:
        row, size = _problem(trace, contents)
        room -= size
        if room < 0:
            row["steps"] = None
        rows.append(row)
    return rows


def _problem(trace: Trace, contents: Contents) -> tuple[dict[str, Json], int]:
    settings = contents.settings
    pooled = replace(trace, signal=trace.signal.pooled_as(settings.signal))
    decisions = replay(pooled, settings)
    stop = decisions[-1].step
    answered, last = trace.steps[stop - 1], trace.steps[-1]
    row: dict[str, Json] = {
        "id": trace.id,
        "family": trace.family,
        "group": trace.group,
        "problem": trace.problem,
        "target": trace.target,
        "bits": trace.steps[0].bits(settings.signal),
        "stop": stop,
        "early": stop < len(trace.steps),
        "answer": answered.answer,
        "right": answered.is_correct,
        "last": last.is_correct,
        "spent": EntropyGate("gate", settings).replay(pooled).tokens,
        "full": trace.tokens,
    }
    steps: list[Json] = []
    size = len(trace.problem or "")
    for number, step in enumerate(trace.steps):
        why = _why(decisions[number], contents) if number < stop else ""
        shown, characters = _step(step, why, contents)
        steps.append(shown)
        size += characters
    row["steps"] = steps
    return row, size


def _step(step: Step, why: str, contents: Contents) -> tuple[dict[str, Json], int]:
    """A step, and about how many characters it adds to the page."""
    signal = contents.settings.signal
    shown: dict[str, Json] = {
        "answer": step.answer,
        "right": None if step.is_unanswered else step.is_correct,
        "bits": step.bits(signal),
        "tokens": step.total_tokens,
        "why": why,
    }
    entropies = step.token_bits(signal) if signal.kind == "entropy" else None
    texts = step.token_texts
    if texts is not None and entropies is not None and len(texts) == len(entropies):
        # The shades of the page are coarser than a hundredth of a bit.
        shown["texts"], shown["shades"] = list(texts), [round(100 * value) for value in entropies]
        size = sum(len(text) + 3 for text in texts) + 3 * len(texts)
    else:
        shown["text"] = step.text
        size = len(step.text)
    if step.probe is not None and step.probe.text:
        shown["probe"] = step.probe.text
        size += len(step.probe.text)
    return shown, size + len(why) + 80


def _why(decision: Decision, contents: Contents) -> str:
    """One decision as a sentence."""
    action = {Action.STOP: "stop here", Action.EXTEND: "continue", Action.FINISH: "answer"}[decision.action]
    explanation = f"{decision.explanation.replace('entropy', contents.quantity)}: {action}."
    measured, threshold = decision.entropy, decision.threshold
    if measured is None or threshold is None or decision.reason in (Reason.NOT_DECISIVE, Reason.MAX_STEPS):
        return f"{explanation[0].upper()}{explanation[1:]}"
    return (
        f"{bits(measured)} {'≤' if measured <= threshold else '>'} τ {bits(threshold)} {contents.unit}; {explanation}"
    )


def _kind(name: str) -> str:
    if name.startswith("entropy-"):
        return "gate"
    return name if name in ("oracle", "recommended") else "baseline"


def _limits(estimate: Estimate | None) -> list[Json] | None:
    return None if estimate is None else list(estimate[:3])


def _spread(spread: Spread | None) -> list[Json] | None:
    return None if spread is None else [spread.mean, spread.p5, spread.p95]


def _rows(values: NDArray[np.float64]) -> list[Json]:
    """Columns (n, K) as lists; whole numbers without a decimal point."""
    return [[int(value) if value == int(value) else value for value in row] for row in values.tolist()]
