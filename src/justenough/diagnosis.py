"""Does this model know when it knows? One verdict, what extending gains, and what is wrong with the signal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from justenough.errors import InputError
from justenough.evaluation.bench import one_kind
from justenough.evaluation.figures import estimate_json, interval
from justenough.evaluation.table import table_of
from justenough.signals import MIN_COVERAGE, Signal
from justenough.stats import RESAMPLES, Estimate, Separation, auroc, paired_bootstrap, separation, within_groups
from justenough.trace import Json, Trace

QUINTILES: Final = 5


class Defect(NamedTuple):
    """Something that weakens the signal, how often, and how to mend it."""

    kind: str
    problems: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Whether a gate is advisable on these traces, and why."""

    model: str
    signal: Signal
    problems: int
    measured: int
    """Problems with a usable signal at step 1."""
    separation: Separation
    accuracy_first: float
    extension_gain: Estimate | None
    """Accuracy of the last step minus that of the first, paired; None with one step."""
    length_auroc: float | None
    """AUROC of the step's length alone."""
    auroc_within_lengths: float | None
    """AUROC of the signal within length quintiles: near .5 where length explains it all."""
    defects: tuple[Defect, ...]

    @property
    def advisable(self) -> bool:
        """Gating is advised only where the signal separates."""
        return self.separation.verdict == "separates"

    def to_json(self) -> dict[str, Json]:
        """The promised keys and more."""
        found = self.separation
        return {
            "model": self.model,
            "signal": dict(self.signal.to_json()),
            "problems": self.problems,
            "measured": self.measured,
            "verdict": found.sentence,
            "advisable": self.advisable,
            "accuracy_first": self.accuracy_first,
            "right": found.right,
            "wrong": found.wrong,
            "cohens_d": found.cohens_d.value if found.cohens_d else None,
            "cohens_d_ci": interval(found.cohens_d),
            "auroc": found.auroc.value if found.auroc else None,
            "auroc_ci": interval(found.auroc),
            "auroc_within_groups": found.within_groups.value if found.within_groups else None,
            "auroc_within_groups_ci": interval(found.within_groups),
            "extension_gain": estimate_json(self.extension_gain),
            "length_auroc": self.length_auroc,
            "auroc_within_lengths": self.auroc_within_lengths,
            "defects": [
                {"kind": defect.kind, "problems": defect.problems, "detail": defect.detail} for defect in self.defects
            ],
        }


def diagnose(
    traces: Sequence[Trace], *, answered_only: bool = False, seed: int = 0, resamples: int = RESAMPLES
) -> Diagnosis:
    """Diagnose traces of one model. Unanswered first steps count as wrong, or are left out with `answered_only`.

    Raises `InputError` where no first step has any signal at all.
    """
    if not traces:
        raise InputError("there is no trace to diagnose", hint="collect some first")
    one_kind(traces, None)
    kept = [trace for trace in traces if not (answered_only and trace.steps[0].is_unanswered)]
    if not kept:
        raise InputError("every first step is unanswered", hint="is the grader the right one? see --grader")
    signal = kept[0].signal
    table = table_of(kept, signal)
    usable = np.isfinite(table.bits[:, 0])
    if not usable.any():
        raise InputError(
            "no first step has a usable signal", hint="serve the model with log-probabilities and collect again"
        )
    bits, correct = table.bits[usable, 0], table.correct[usable, 0]
    groups = None if table.groups is None else [table.groups[row] for row in np.flatnonzero(usable)]
    lengths = np.array([trace.steps[0].tokens for trace in kept], dtype=np.float64)[usable]
    gain = None
    if table.steps > 1:
        difference = table.correct[:, -1].astype(np.float64) - table.correct[:, 0]
        gain = paired_bootstrap(difference, seed=seed, resamples=resamples)
    return Diagnosis(
        model=kept[0].model,
        signal=signal,
        problems=len(kept),
        measured=int(usable.sum()),
        separation=separation(bits, correct, groups=groups, seed=seed, resamples=resamples),
        accuracy_first=float(table.correct[:, 0].mean()),
        extension_gain=gain,
        length_auroc=auroc(lengths[correct], lengths[~correct]),
        auroc_within_lengths=within_groups(bits, correct, _quintiles(lengths)),
        defects=tuple(_defects(kept, signal)),
    )


def _quintiles(lengths: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[str]:
    edges = np.quantile(lengths, np.arange(1, QUINTILES) / QUINTILES)
    return [str(quintile) for quintile in np.searchsorted(edges, lengths, side="right")]


def _defects(traces: Sequence[Trace], signal: Signal) -> list[Defect]:
    firsts = [trace.steps[0] for trace in traces]
    found: list[Defect] = []
    if signal.kind != "entropy":
        found.append(Defect("stand_in_signal", len(firsts), f"{signal.kind} stands in for entropy; it is not bits"))
    elif signal.top_k is not None and signal.top_k < 20:
        found.append(Defect("top_k_below_20", len(firsts), f"top-{signal.top_k}: the paper's thresholds are of top-20"))
    if signal.logits == "processed":
        detail = "log-probabilities are from after temperature: their entropy is another one"
        found.append(Defect("processed_logits", len(firsts), detail))
    few = sum((covered := step.coverage()) is not None and covered < MIN_COVERAGE for step in firsts)
    if few:
        found.append(Defect("low_coverage", few, f"fewer than {MIN_COVERAGE:.0%} of the tokens have log-probabilities"))
    none = sum(step.coverage() is None and step.bits(signal) is None for step in firsts)
    if none:
        found.append(Defect("missing_signal", none, "no signal at step 1"))
    merged = sum(_merged(step.top_logprobs) for step in firsts if step.top_logprobs is not None)
    if merged:
        detail = "rows hold fewer entries than others: entries were merged by decoded text, or cut"
        found.append(Defect("merged_entries", merged, detail))
    values = {bits for step in firsts if (bits := step.usable_bits(signal)) is not None}
    if len(values) == 1 and len(firsts) > 1:
        found.append(Defect("constant_signal", len(firsts), "every problem has the same value"))
    truncated = sum(step.finish == "length" and not step.is_correct for step in firsts)
    if truncated:
        found.append(Defect("truncated", truncated, "first steps cut at the token limit and counted as wrong"))
    unanswered = sum(step.is_unanswered for step in firsts)
    if unanswered:
        found.append(Defect("unanswered", unanswered, "first steps without an answer, counted as wrong"))
    return found


def _merged(rows: Sequence[Sequence[float]]) -> bool:
    return len({len(row) for row in rows}) > 1
