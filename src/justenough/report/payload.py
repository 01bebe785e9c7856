"""What the page's own script draws from and counts with."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from justenough.evaluation.draws import Spread
from justenough.evaluation.figures import estimate_json
from justenough.gate import Action, Decision, Reason, replay
from justenough.report.budgetsheets import budget_payload
from justenough.report.data import PROBLEMS, Contents
from justenough.report.words import bits, method_words, outcome_words
from justenough.stats import Estimate
from justenough.trace import Json, Step, Trace

ROOM: Final = 1_800_000
"""Characters of model output and token entropies that the page may hold; what is beyond is left out, and counted."""


def payload(found: Contents) -> dict[str, Json]:
    """One JSON object."""
    made, settings, table = found.made, found.settings, found.table
    return {
        "unit": found.unit,
        "quantity": found.quantity,
        "steps": table.steps,
        "margin": made.margin,
        "scale": {"kind": found.scale.kind, "low": found.scale.low, "high": found.scale.high},
        "gate": {
            "threshold": settings.threshold,
            "decide": settings.decide,
            "patience": settings.patience,
            "minTokens": settings.min_tokens,
            "maxSteps": settings.max_steps,
        },
        "oracleSaving": made.oracle_saving,
        "bits": [[float(value) if np.isfinite(value) else None for value in row] for row in table.bits],
        "correct": ["".join("1" if right else "0" for right in row) for row in table.correct],
        "spent": [[_whole(value) for value in row] for row in table.spent],
        # Only a minimum of tokens needs them.
        "generated": [[_whole(value) for value in row] for row in table.generated] if settings.min_tokens else None,
        "methods": [
            {
                "name": name,
                "label": method_words(name),
                "threshold": threshold,
                "outcome": outcome_words(made.threshold_outcomes.get(name, "ok")),
                "chosen": name == made.method,
            }
            for name, threshold in made.thresholds.items()
        ],
        "histogram": [[entry.low, entry.high, entry.right, entry.wrong] for entry in found.histogram],
        "roc": [[false, true] for false, true in found.roc],
        "reliability": [
            {"low": entry.low, "high": entry.high, "middle": entry.middle, "share": estimate_json(entry.share)}
            for entry in found.reliability
        ],
        "rules": [
            {
                "name": name,
                "kind": _kind(name),
                "accuracy": figures.accuracy,
                "change": _limits(figures.accuracy_change),
                "saving": _limits(figures.saving),
            }
            for name, figures in made.rules.items()
        ],
        "draws": {
            "n": made.draws.n,
            "savings": list(made.draws.savings),
            "changes": list(made.draws.changes),
            "mean": [made.draws.saving.mean, made.draws.accuracy_change.mean],
            "shown": [made.gated.saving.value, made.gated.accuracy_change.value]
            if made.calibrated and made.gated.saving
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
            for row in found.sizes
        ],
        "budget": budget_payload(found),
        "families": [
            {"name": row.name, "problems": row.problems, "first": row.first, "gated": row.gated, "full": row.full}
            for row in found.families
        ],
        "problems": problems(found),
    }


def problems(found: Contents) -> list[Json]:
    """The first problems with every step, and why the gate went on or stopped."""
    room = ROOM
    rows: list[Json] = []
    for trace in found.traces[:PROBLEMS]:
        row, size = _problem(trace, found)
        room -= size
        if room < 0:
            row["steps"] = None
        rows.append(row)
    return rows


def _problem(trace: Trace, found: Contents) -> tuple[dict[str, Json], int]:
    settings = found.settings
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
        "spent": trace.tokens_to(stop),
        "full": trace.tokens,
    }
    steps: list[Json] = []
    size = len(trace.problem or "")
    for number, step in enumerate(trace.steps):
        why = _why(decisions[number], found) if number < stop else ""
        shown, characters = _step(step, why, found)
        steps.append(shown)
        size += characters
    row["steps"] = steps
    return row, size


def _step(step: Step, why: str, found: Contents) -> tuple[dict[str, Json], int]:
    """A step and about how many characters it takes in the page."""
    signal = found.settings.signal
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
        # Hundredths of a bit are finer than any shade.
        shown["texts"], shown["shades"] = list(texts), [round(100 * value) for value in entropies]
        size = sum(len(text) + 3 for text in texts) + 3 * len(texts)
    else:
        shown["text"] = step.text
        size = len(step.text)
    if step.probe is not None and step.probe.text:
        shown["probe"] = step.probe.text
        size += len(step.probe.text)
    return shown, size + len(why) + 80


def _why(decision: Decision, found: Contents) -> str:
    """One decision in a sentence."""
    then = {Action.STOP: "stop here", Action.EXTEND: "think on", Action.FINISH: "answer"}[decision.action]
    said = f"{decision.explanation.replace('entropy', found.quantity)}: {then}."
    measured, threshold = decision.entropy, decision.threshold
    if measured is None or threshold is None or decision.reason in (Reason.NOT_DECISIVE, Reason.MAX_STEPS):
        return f"{said[0].upper()}{said[1:]}"
    sign = "≤" if measured <= threshold else ">"
    return f"{bits(measured)} {sign} τ {bits(threshold)} {found.unit}; {said}"


def _kind(name: str) -> str:
    if name.startswith("entropy-"):
        return "gate"
    return name if name in ("oracle", "recommended") else "baseline"


def _limits(estimate: Estimate | None) -> list[Json] | None:
    return None if estimate is None else [estimate.value, estimate.low, estimate.high]


def _spread(spread: Spread | None) -> list[Json] | None:
    return None if spread is None else [spread.mean, spread.p5, spread.p95]


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else float(value)
