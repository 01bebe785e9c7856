"""Does this model know when it knows? One verdict, what extending gains, and what is wrong with the signal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.evaluation.bench import one_kind
from justenough.evaluation.figures import estimate_json, interval
from justenough.importing.replies import MERGED, narrowed
from justenough.signal.signal import MIN_COVERAGE, Signal
from justenough.stats import RESAMPLES, Estimate, Separation, auroc, paired_bootstrap, separation, within_groups
from justenough.trace import Json, Step, Trace

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

QUINTILES: Final = 5


class Defect(NamedTuple):
    """Something that weakens the signal, how often, and how to mend it."""

    kind: str
    """Name of the defect."""
    problems: int
    """Problems that have the defect."""
    detail: str
    """What is wrong and how to mend it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Whether a gate is advisable on these traces, and why."""

    model: str
    signal: Signal
    problems: int
    measured: int
    """Problems with a usable signal and a graded answer at step 1."""
    separation: Separation
    accuracy_first: float | None
    """Of the graded; None where none is."""
    extension_gain: Estimate | None
    """Accuracy of the last step minus that of the first, paired; None with one step."""
    length_auroc: float | None
    """AUROC of the step's length alone."""
    auroc_within_lengths: float | None
    """AUROC of the signal within length quintiles: near .5 where length explains it all."""
    defects: tuple[Defect, ...]
    """What weakens the signal."""

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

    Traces without a usable signal, or without grading, are diagnosed too: the verdict is then `cannot tell`, and the
    defects say why. Raises `InputError` for no trace, or traces of several models.
    """
    if not traces:
        raise InputError("there is no trace to diagnose", hint="collect some first")
    one_kind(traces, None)
    kept = [trace for trace in traces if not (answered_only and trace.steps[0].is_unanswered)]
    if not kept:
        raise InputError("every first step is unanswered", hint="is the grader the right one? see --grader")
    signal = kept[0].signal
    # Rows with fewer entries than the signal takes cannot be measured: such tokens are uncovered.
    firsts = [trace.steps[0] if signal.top_k is None else narrowed(trace.steps[0], signal.top_k) for trace in kept]
    graded = np.array([_is_graded(step) for step in firsts])
    right = np.array([step.is_correct for step in firsts])
    measured = np.array([np.nan if (bits := step.usable_bits(signal)) is None else bits for step in firsts])
    usable = graded & np.isfinite(measured)
    bits, correct = measured[usable], right[usable]
    lengths = np.array([step.tokens for step in firsts], dtype=np.float64)[usable]
    return Diagnosis(
        model=kept[0].model,
        signal=signal,
        problems=len(kept),
        measured=int(usable.sum()),
        separation=separation(bits, correct, groups=_groups(kept, usable), seed=seed, resamples=resamples),
        accuracy_first=float(right[graded].mean()) if graded.any() else None,
        extension_gain=_gain(kept, seed=seed, resamples=resamples),
        length_auroc=auroc(lengths[correct], lengths[~correct]),
        auroc_within_lengths=within_groups(bits, correct, _quintiles(lengths)),
        defects=tuple(_defects(firsts, signal)),
    )


def _is_graded(step: Step) -> bool:
    return step.correct is not None or step.is_unanswered


def _groups(traces: Sequence[Trace], usable: Bools) -> list[str] | None:
    """Of each usable problem, within families where both are recorded; None where there are none."""
    if all(trace.group is None for trace in traces):
        return None
    return [f"{trace.family or ''}/{trace.group or ''}" for trace, kept in zip(traces, usable, strict=True) if kept]


def _gain(traces: Sequence[Trace], *, seed: int, resamples: int) -> Estimate | None:
    """What the last step adds to the first's accuracy, where both are graded."""
    pairs = [(trace.steps[0], trace.steps[-1]) for trace in traces]
    differences = [
        float(last.is_correct) - float(first.is_correct)
        for first, last in pairs
        if _is_graded(first) and _is_graded(last)
    ]
    if not differences or max(len(trace.steps) for trace in traces) == 1:
        return None
    return paired_bootstrap(np.array(differences), seed=seed, resamples=resamples)


def _quintiles(lengths: Floats) -> list[str]:
    if not len(lengths):
        return []
    edges = np.quantile(lengths, np.arange(1, QUINTILES) / QUINTILES)
    return [str(quintile) for quintile in np.searchsorted(edges, lengths, side="right")]


def _defects(firsts: Sequence[Step], signal: Signal) -> list[Defect]:
    values = {bits for step in firsts if (bits := step.usable_bits(signal)) is not None}
    stand_in = signal.kind != "entropy"
    constant = len(values) == 1 and len(firsts) > 1
    counted = {
        "stand_in_signal": (stand_in * len(firsts), f"{signal.kind} stands in for entropy; it is not bits"),
        "top_k_below_20": (
            (not stand_in and (signal.top_k or 20) < 20) * len(firsts),
            f"top-{signal.top_k}: the paper's thresholds are of top-20",
        ),
        "processed_logits": (
            (signal.logits == "processed") * len(firsts),
            "log-probabilities are from after temperature: their entropy is another one",
        ),
        "fewer_entries": (sum(map(_has_gaps, firsts)), f"log-probabilities of {_covered(firsts):.2%} of the tokens"),
        "low_coverage": (
            sum((covered := step.coverage()) is not None and covered < MIN_COVERAGE for step in firsts),
            f"fewer than {MIN_COVERAGE:.0%} of the tokens have log-probabilities: no stop is taken there",
        ),
        "missing_signal": (
            sum(step.coverage() is None and step.bits(signal) is None for step in firsts),
            "no signal at step 1: serve the model with log-probabilities and collect again",
        ),
        "merged_entries": (
            sum(_is_merged(step, signal) for step in firsts),
            "tokens came with fewer entries than others: merged by decoded text, or cut",
        ),
        "constant_signal": (constant * len(firsts), "every problem has the same value"),
        "truncated": (
            sum(step.finish == "length" and _is_graded(step) and not step.is_correct for step in firsts),
            "first steps cut at the token limit and counted as wrong",
        ),
        "unanswered": (
            sum(step.is_unanswered for step in firsts),
            "first steps without an answer, counted as wrong",
        ),
        "ungraded": (
            sum(not _is_graded(step) for step in firsts),
            "first answers that nobody graded say nothing of right and wrong: give targets (--tasks)",
        ),
    }
    return [Defect(kind, problems, detail) for kind, (problems, detail) in counted.items() if problems]


def _has_gaps(step: Step) -> bool:
    # Servers count the token that ends the text, which nobody shows and no signal is of.
    ending = step.finish == "stop"
    return step.entries is not None and step.entries < step.tokens - step.discarded - ending


def _covered(steps: Sequence[Step]) -> float:
    """Share of the tokens of steps with log-probabilities that have some."""
    shown = [step for step in steps if step.entries is not None]
    tokens = sum(step.tokens - step.discarded for step in shown)
    return sum(min(step.entries or 0, step.tokens - step.discarded) for step in shown) / max(tokens, 1)


def _is_merged(step: Step, signal: Signal) -> bool:
    # Of a known k, one entry more is no fault: a server may add the sampled token.
    return MERGED in step.extra or (signal.top_k is None and len({len(row) for row in step.top_logprobs or ()}) > 1)
