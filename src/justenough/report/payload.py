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
from justenough.report.rulesheets import GATES, lacks_threshold
from justenough.report.thoughts import chosen_thoughts, stops_of
from justenough.report.words import bits, method_words, outcome_words
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
        "bits": [[_finite(value) for value in row] for row in contents.scores],
        # Used only if the gate gives up: whether the outlook is at or below its threshold.
        "hopeless": _hopeless(contents),
        "correct": _flags(table.correct),
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
            # The thresholds of the other methods are values of the signal, not scores of a decider.
            for name, threshold in (
                evaluation.thresholds if settings.decider is None else {evaluation.method: settings.threshold}
            ).items()
        ],
        "histogram": [list[Json](entry) for entry in contents.histogram],
        "roc": [list[Json](place) for place in contents.roc],
        "reliability": [entry._asdict() | {"share": estimate_json(entry.share)} for entry in contents.reliability],
        "rules": [
            {
                "name": name,
                "kind": _kind(name),
                "accuracy": figures.accuracy,
                "change": _limits(figures.accuracy_change),
                "saving": _limits(figures.saving),
            }
            for name, figures in evaluation.rules.items()
            if not lacks_threshold(evaluation, name)
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
        "budget": None if contents.budget is None else budget_payload(contents.budget),
        "families": [dict[str, Json](row._asdict()) for row in contents.families],
        "problems": problems(contents),
        "thoughts": list(chosen_thoughts(contents)),
    }


def problems(contents: Contents) -> list[Json]:
    """The first problems with each step, and why the gate continued or stopped."""
    room = ROOM
    rows: list[Json] = []
    for trace, scores in zip(contents.traces[:PROBLEMS], contents.scores, strict=False):
        row, size = _problem(trace, scores, contents)
        room -= size
        if room < 0:
            row["steps"] = None
        rows.append(row)
    return rows


def _problem(trace: Trace, scores: NDArray[np.float64], contents: Contents) -> tuple[dict[str, Json], int]:
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
        "bits": _compared(decisions[0]),
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
        value = step.bits(settings.signal) if settings.decider is None else _finite(scores[number])
        row_of_step, characters = _step(step, value, why, contents)
        steps.append(row_of_step)
        size += characters
    row["steps"] = steps
    if trace.shape == "streaming":
        row["stops"] = [list(one) for one in stops_of(trace, contents)]
        size += len(str(row["stops"]))
    return row, size


def _step(step: Step, value: float | None, why: str, contents: Contents) -> tuple[dict[str, Json], int]:
    """A step with its signal or score, and about how many characters it adds to the page."""
    signal = contents.settings.signal
    row: dict[str, Json] = {
        "answer": step.answer,
        "right": None if step.is_unanswered else step.is_correct,
        "bits": value,
        "tokens": step.total_tokens,
        "own": step.tokens,
        "why": why,
    }
    entropies = step.token_bits(signal) if signal.kind == "entropy" else None
    texts = step.token_texts
    if texts is not None and entropies is not None and len(texts) == len(entropies):
        # The shades of the page are coarser than a hundredth of a bit.
        row["texts"], row["shades"] = list(texts), [round(100 * value) for value in entropies]
        size = sum(len(text) + 3 for text in texts) + 3 * len(texts)
    else:
        row["text"] = step.text
        size = len(step.text)
    if step.probe is not None and step.probe.text:
        row["probe"] = step.probe.text
        size += len(step.probe.text)
    return row, size + len(why) + 80


def _why(decision: Decision, contents: Contents) -> str:
    """One decision as a sentence."""
    action = {Action.STOP: "stop here", Action.EXTEND: "continue", Action.FINISH: "answer"}[decision.action]
    explanation = f"{decision.explanation.replace('entropy', contents.quantity)}: {action}."
    measured, threshold = _compared(decision), decision.threshold
    if measured is None or threshold is None or decision.reason in (Reason.NOT_DECISIVE, Reason.MAX_STEPS):
        return f"{explanation[0].upper()}{explanation[1:]}"
    return (
        f"{bits(measured)} {'≤' if measured <= threshold else '>'} τ {bits(threshold)} {contents.unit}; {explanation}"
    )


def _compared(decision: Decision) -> float | None:
    """What was compared with the threshold."""
    return decision.entropy if decision.score is None else decision.score


def _finite(value: np.float64) -> float | None:
    return float(value) if np.isfinite(value) else None


def _hopeless(contents: Contents) -> list[Json] | None:
    settings = contents.settings
    if settings.outlook is None or settings.give_up is None:
        return None
    return _flags(contents.table.scores(settings.outlook) <= settings.give_up)


def _flags(values: NDArray[np.bool_]) -> list[Json]:
    """Each row (n, K) as a text of 0 and 1."""
    return ["".join("1" if value else "0" for value in row) for row in values]


def _kind(name: str) -> str:
    if name in ("oracle", "recommended"):
        return name
    return "gate" if name.startswith(GATES) else "baseline"


def _limits(estimate: Estimate | None) -> list[Json] | None:
    return None if estimate is None else list(estimate[:3])


def _spread(spread: Spread | None) -> list[Json] | None:
    return None if spread is None else [spread.mean, spread.p5, spread.p95]


def _rows(values: NDArray[np.float64]) -> list[Json]:
    """Columns (n, K) as lists; whole numbers without a decimal point."""
    return [[int(value) if value == int(value) else value for value in row] for row in values.tolist()]
