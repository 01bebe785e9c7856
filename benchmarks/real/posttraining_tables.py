"""The tables of `posttraining.py`: what the first steps of the models show, and what training changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.real.figures import number
from justenough.evaluation import evaluate
from justenough.evaluation.diagnosis import diagnose
from justenough.stats.logistic import logistic
from justenough.stats.text import percent
from justenough.trace import Trace
from justenough.trace.files import read_traces

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FOLDS: Final = 5
RESAMPLES: Final = 2_000
ARMS: Final = {
    "base": "before",
    "right": "right answers",
    "any": "any answers (control)",
    "advantage": "policy gradient",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Firsts:
    """The first steps of one model, in the order of the problems."""

    bits: Floats
    right: Bools
    levels: NDArray[np.str_]
    loss: Floats
    """Squared error of the probability of being right that the entropy gives, cross-fitted."""
    tokens: Floats
    """Of all steps."""
    saved: Floats
    """Of these, the ones after step 1, where a gate with the threshold of all labels stops there."""
    gained: Floats
    """1 where that gate makes a wrong answer right, -1 where it makes a right one wrong."""

    @staticmethod
    def of(traces: Sequence[Trace], *, threshold: float | None = None) -> Firsts:
        """From the traces of all test problems; without a threshold nothing is saved."""
        ordered = sorted(traces, key=lambda trace: trace.id)
        bits = np.array([trace.steps[0].bits(trace.signal) for trace in ordered], dtype=np.float64)
        right = np.array([trace.steps[0].is_correct for trace in ordered])
        levels = np.array([trace.group for trace in ordered])
        tokens = np.array([sum(step.tokens for step in trace.steps) for trace in ordered], dtype=np.float64)
        rest = tokens - np.array([trace.steps[0].tokens for trace in ordered])
        stops = bits <= (-np.inf if threshold is None else threshold)
        gained = stops * (right.astype(np.float64) - [bool(trace.steps[-1].is_correct) for trace in ordered])
        loss = squared_errors(bits, right)
        return Firsts(
            bits=bits, right=right, levels=levels, loss=loss, tokens=tokens, saved=stops * rest, gained=gained
        )


def squared_errors(bits: Floats, right: Bools) -> Floats:
    """Of a logistic regression on the entropy; each fifth is predicted by the other four."""
    errors = np.empty(len(bits))
    for fold in range(FOLDS):
        held = np.arange(len(bits)) % FOLDS == fold
        intercept, slope = logistic(bits[~held, None], right[~held], penalty=(0.0, 0.1))
        errors[held] = (1 / (1 + np.exp(-(intercept + slope * bits[held]))) - right[held]) ** 2
    return errors


def figures(firsts: Firsts, counts: Floats) -> dict[str, Floats]:
    """Each figure for each row of `counts` (m, n), which says how often each problem is taken."""
    right, bits = firsts.right, firsts.bits
    n, good = counts.sum(axis=1), counts @ right
    bad = n - good
    with np.errstate(divide="ignore", invalid="ignore"):
        means = counts @ (bits * right) / good, counts @ (bits * ~right) / bad
        squares = counts @ (bits**2) - good * means[0] ** 2 - bad * means[1] ** 2
        values = {
            "accuracy": good / n,
            "d": (means[1] - means[0]) / np.sqrt(squares / (n - 2)),
            "bits": counts @ bits / n,
            "saving": counts @ firsts.saved / (counts @ firsts.tokens),
            "gain": counts @ firsts.gained / n,
            "skill": 1 - counts @ firsts.loss / (good * bad / n),
        }
        higher = (bits[None, :] > bits[:, None]) + (bits[None, :] == bits[:, None]) / 2
        compared = right[:, None] & ~right[None, :]
        for name, pairs in {
            "auroc": compared,
            "within": compared & (firsts.levels[:, None] == firsts.levels[None, :]),
        }.items():
            total = ((counts @ pairs.astype(np.float64)) * counts).sum(axis=1)
            values[name] = ((counts @ (higher * pairs)) * counts).sum(axis=1) / total
    return values


def resampled(n: int) -> Floats:
    """How often each problem is in each resample (1 + RESAMPLES, n); the first row takes each problem once."""
    draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return np.vstack([np.ones(n), draws])


def contrast(one: Sequence[Firsts], other: Sequence[Firsts], counts: Floats, *, agreed: bool) -> dict[str, Floats]:
    """Mean difference of the figures over pairs of models.

    With `agreed`, each pair is compared on the problems that both have right or both have wrong, so that both have the
    same accuracy and the same labels.
    """
    differences: dict[str, list[Floats]] = {}
    for left, right in zip(one, other, strict=True):
        taken = counts * (left.right == right.right) if agreed else counts
        theirs = figures(right, taken)
        for name, values in figures(left, taken).items():
            differences.setdefault(name, []).append(values - theirs[name])
    return {name: np.mean(values, axis=0) for name, values in differences.items()}


def shown(values: Floats, *, digits: int, scale: float = 1.0) -> str:
    """The difference with its bootstrap interval."""
    if not np.isfinite(values[0]):
        return "–"
    low, high = np.nanquantile(values[1:], (0.025, 0.975))
    return f"{scale * values[0]:+.{digits}f} [{scale * low:+.{digits}f}, {scale * high:+.{digits}f}]".replace("-", "−")


Gates = Mapping[str, Mapping[str, Any]]
"""What `evaluate` finds for each model."""


def model_table(files: Mapping[str, Sequence[Trace]], gates: Gates) -> list[str]:
    """One row for each model."""
    heads = ["model", "right at step 1", "mean bits", "d", "AUROC", "within levels", "Brier score", "skill"]
    heads += ["threshold", "after all steps", "gate saves", "change, points"]
    lines = [f"| {' | '.join(heads)} |", "|---|---:|---:|---|---|---|---:|---:|---:|---:|---|---|"]
    for name, traces in files.items():
        diagnosis: Mapping[str, Any] = diagnose(traces).to_json()
        firsts = Firsts.of(traces)
        own = figures(firsts, np.ones((1, len(traces))))
        cells = [
            f"`{name}`",
            percent(diagnosis["accuracy_first"]),
            f"{own['bits'][0]:.3f}",
            number(diagnosis, "cohens_d", digits=2),
            number(diagnosis, "auroc", digits=3),
            number(diagnosis, "auroc_within_groups", digits=3),
            f"{firsts.loss.mean():.3f}",
            f"{own['skill'][0]:+.2f}".replace("-", "−"),
            *gate(gates[name]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def gate(evaluation: Mapping[str, Any]) -> list[str]:
    """The entropy-mean gate against all steps: threshold, accuracy of all steps, saving and change."""
    row = evaluation["rules"].get("entropy-mean")
    cells = [_threshold(evaluation["thresholds"]["mean"]), percent(evaluation["accuracy_full"])]
    return [*cells, *(("–", "–") if row is None else (points(row, "saving", "%"), points(row, "accuracy_change", "")))]


def _threshold(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def points(row: Mapping[str, Any], key: str, unit: str) -> str:
    """A figure times 100 with its interval."""
    values = [row[key], *(row[f"{key}_ci"] or ())]
    sign = "" if unit else "+"
    texts = [f"{100 * value:{sign}.1f}".replace("-", "−") for value in values]
    limits = f" [{texts[1]}, {texts[2]}]" if len(texts) > 1 else ""
    return f"{texts[0]}{' ' * bool(unit)}{unit}{limits}"


def contrast_table(files: Mapping[str, Sequence[Trace]], gates: Gates) -> list[str]:
    """What each arm changes, as a mean over its seeds, on all problems and on those that were answered alike."""
    arms: dict[str, list[Firsts]] = {}
    for name, traces in files.items():
        threshold: float | None = gates[name]["thresholds"]["mean"]
        arms.setdefault(name.split("-")[0], []).append(Firsts.of(traces, threshold=threshold))
    base = arms.pop("base")
    counts = resampled(len(base[0].bits))
    pairs = [(f"{ARMS[arm]} − before", each, base * len(each)) for arm, each in arms.items()]
    if "right" in arms and "any" in arms:
        seeds = min(len(arms["right"]), len(arms["any"]))
        pairs.append(("right answers − any answers", arms["right"][:seeds], arms["any"][:seeds]))
    lines = [
        "| change | seeds | right at step 1, points | mean bits | d | AUROC | within levels | Brier skill "
        "| gate saves, points | its gain, points "
        "| at matched accuracy: problems | AUROC | gate saves, points | its gain, points |",
        "|---|---:|---|---|---|---|---|---|---|---|---:|---|---|---|",
    ]
    for label, one, other in pairs:
        plain = contrast(one, other, counts, agreed=False)
        alike = contrast(one, other, counts, agreed=True)
        same = np.mean([(left.right == right.right).sum() for left, right in zip(one, other, strict=True)])
        cells = [
            label,
            f"{len(one)}",
            shown(plain["accuracy"], digits=1, scale=100),
            shown(plain["bits"], digits=3),
            *(
                shown(plain[name], digits=digits)
                for name, digits in (("d", 2), ("auroc", 3), ("within", 3), ("skill", 2))
            ),
            *(shown(plain[name], digits=1, scale=100) for name in ("saving", "gain")),
            f"{same:.0f}",
            shown(alike["auroc"], digits=3),
            *(shown(alike[name], digits=1, scale=100) for name in ("saving", "gain")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def models(folder: Path) -> dict[str, Sequence[Trace]]:
    """The traces of each model by the file's name, the base model first and then arm by arm."""
    names = sorted(path.stem for path in folder.glob("*.parquet"))
    ordered = sorted(names, key=lambda name: list(ARMS).index(name.split("-")[0]))
    return {name: read_traces(folder / f"{name}.parquet").traces for name in ordered}


def tables(folder: Path) -> str:
    """Both tables, from the traces in a folder."""
    files = models(folder)
    gates = {name: evaluate(traces).to_json() for name, traces in files.items()}
    return "\n".join([*model_table(files, gates), "", *contrast_table(files, gates), ""])
