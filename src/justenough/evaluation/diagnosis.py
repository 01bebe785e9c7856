"""Whether a model's signal separates right from wrong answers, what further steps gain, and which defects it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.evaluation.bench import Seen, ignores_signal
from justenough.evaluation.figures import estimate_json, separation_json
from justenough.importing.replies import MERGED, narrowed
from justenough.signal.signal import MIN_COVERAGE, Signal
from justenough.stats import Estimate, Separation, auroc, change_interval, separation, within_groups
from justenough.trace import Json, Trace
from justenough.trace.building import columns_of
from justenough.trace.columns import Columns

Floats = NDArray[np.float64]

QUINTILES: Final = 5


class Defect(NamedTuple):
    """A property that weakens the signal, with its number of problems and its remedy."""

    kind: str
    """Name of the defect."""
    problems: int
    """Problems that have the defect."""
    detail: str
    """The defect and its remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Whether a gate is advisable on these traces, and why."""

    model: str
    signal: Signal
    problems: int
    measured: int
    """Problems with a usable signal and a graded answer at step 1."""
    steps: int
    """Of the longest trace; a gate saves nothing where it is 1."""
    separation: Separation
    accuracy_first: float | None
    """Of the graded first answers; None if none is graded."""
    extension_gain: Estimate | None
    """Accuracy of the last step minus that of the first, paired; None with one step."""
    length_auroc: float | None
    """AUROC of the step's length alone."""
    auroc_within_lengths: float | None
    """AUROC of the signal within length quintiles: near .5 if length explains all of it."""
    defects: tuple[Defect, ...]
    """What weakens the signal."""

    @property
    def advisable(self) -> bool:
        """Gating is advised only where the signal separates."""
        return self.separation.verdict == "separates"

    def to_json(self) -> dict[str, Json]:
        """The promised keys and more."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return (
            separation_json(self.separation)
            | {key: value for key, value in values.items() if isinstance(value, str | int | float | None)}
            | {
                "signal": self.signal.to_json(),
                "advisable": self.advisable,
                "right": self.separation.right,
                "wrong": self.separation.wrong,
                "extension_gain": estimate_json(self.extension_gain),
                "defects": [dict[str, Json](defect._asdict()) for defect in self.defects],
            }
        )


def diagnose(traces: Iterable[Trace], *, answered_only: bool = False) -> Diagnosis:
    """Diagnose traces of one model. Unanswered first steps count as wrong, or are left out with `answered_only`.

    The traces are read once. Traces without a usable signal, or without grades, are accepted: the verdict
    is then `cannot tell`, and the defects say why. Raises `InputError` for no trace, or traces of several models.
    """
    firsts = _Firsts(answered_only=answered_only)
    columns = firsts.columns(traces)
    first = columns.first
    graded, right, measured = columns.graded[first], columns.right[first], columns.bits[first]
    usable = graded & np.isfinite(measured)
    bits, correct = measured[usable], right[usable]
    lengths = columns.tokens[first][usable].astype(np.float64)
    return Diagnosis(
        model=columns.models[0],
        signal=columns.signal,
        problems=len(columns),
        measured=int(usable.sum()),
        steps=columns.steps,
        separation=separation(
            bits,
            correct,
            groups=columns.rows(usable).strata() if columns.strata() else None,
            problems=columns.hashed_ids[usable].tolist(),
        ),
        accuracy_first=float(right[graded].mean()) if graded.any() else None,
        extension_gain=_gain(columns),
        length_auroc=auroc(lengths[correct], lengths[~correct]),
        auroc_within_lengths=within_groups(bits, correct, _quintiles(lengths)),
        defects=tuple(firsts.defects(columns)),
    )


def _gain(columns: Columns) -> Estimate | None:
    """What the last step adds to the first step's accuracy, where both are graded."""
    first, last = columns.first, columns.last()
    paired = columns.graded[first] & columns.graded[last]
    if not paired.any() or columns.steps == 1:
        return None
    problems = columns.hashed_ids[paired].tolist()
    return change_interval(columns.right[last][paired], columns.right[first][paired], problems=problems)


def _quintiles(lengths: Floats) -> list[str]:
    if not len(lengths):
        return []
    edges = np.quantile(lengths, np.arange(1, QUINTILES) / QUINTILES)
    return [str(quintile) for quintile in np.searchsorted(edges, lengths, side="right")]


class _Firsts:
    """Counts the defects of first steps while the traces are turned into columns."""

    def __init__(self, *, answered_only: bool) -> None:
        self._answered_only = answered_only
        self._counts: Counter[str] = Counter()
        self._tokens = self._with_entries = 0
        """Tokens of first steps with log-probabilities, and how many of those tokens have some."""

    def columns(self, traces: Iterable[Trace]) -> Columns:
        """The columns of the traces that are diagnosed; only first steps are measured."""
        seen = Seen(None)
        chosen = (trace for trace in seen.through(traces) if not (self._answered_only and trace.steps[0].is_unanswered))
        if (start := next(chosen, None)) is None:
            if seen.first is None:
                raise InputError("there is no trace to diagnose", hint="collect some first")
            raise InputError("every first step is unanswered", hint="is the grader the right one? see --grader")
        signal = start.signal
        return columns_of((self._counted(trace, signal) for trace in chain([start], chosen)), signal, measure="first")

    def _counted(self, trace: Trace, signal: Signal) -> Trace:
        step = trace.steps[0]
        if signal.top_k is not None:
            # Rows with fewer entries than the signal needs cannot be measured: such tokens count as uncovered.
            step = narrowed(step, signal.top_k)
        covered, graded = step.coverage(), step.correct is not None or step.is_unanswered
        own = step.tokens - step.discarded
        if step.entries is not None:
            self._tokens += own
            self._with_entries += min(step.entries, own)
        self._counts.update(
            {
                # Servers count the token that ends the text, which has no signal.
                "fewer_entries": step.entries is not None and step.entries < own - (step.finish == "stop"),
                "low_coverage": covered is not None and covered < MIN_COVERAGE,
                "missing_signal": covered is None and step.bits(signal) is None,
                "ignored_signal": any(ignores_signal(one, signal) for one in trace.steps),
                # With a top_k, one more entry is no defect: a server may add the sampled token.
                "merged_entries": MERGED in step.extra
                or (signal.top_k is None and len({len(row) for row in step.top_logprobs or ()}) > 1),
                "truncated": step.finish == "length" and graded and not step.is_correct,
                "unanswered": step.is_unanswered,
                "ungraded": not graded,
            }
        )
        return replace(trace, steps=(step, *trace.steps[1:]))

    def defects(self, columns: Columns) -> list[Defect]:
        """All defects that at least one problem has."""
        n, signal, bits = len(columns), columns.signal, columns.bits[columns.first]
        stand_in = signal.kind != "entropy"
        constant = len(np.unique(bits[np.isfinite(bits)])) == 1 and n > 1
        of_all = {
            "stand_in_signal": stand_in,
            "top_k_below_20": not stand_in and (signal.top_k or 20) < 20,
            "processed_logits": signal.logits == "processed",
            "constant_signal": constant,
        }
        counts = self._counts + Counter({kind: n for kind, there in of_all.items() if there})
        share = self._with_entries / max(self._tokens, 1)
        details = {
            "stand_in_signal": f"{signal.kind} stands in for entropy; it is not bits",
            "top_k_below_20": f"top-{signal.top_k}: the thresholds of the paper are for top-20",
            "processed_logits": "log-probabilities after temperature give another entropy than raw ones",
            "fewer_entries": f"only {share:.2%} of the tokens have log-probabilities",
            "low_coverage": f"fewer than {MIN_COVERAGE:.0%} of the tokens have log-probabilities: the gate cannot stop",
            "missing_signal": "no signal at step 1: serve the model with log-probabilities and collect again",
            "ignored_signal": f"steps have a signal that the kind {signal.kind!r} does not read; correct signal.kind",
            "merged_entries": "some tokens have fewer entries than others: the server merged or cut them",
            "constant_signal": "every problem has the same value",
            "truncated": "first steps were cut at the token limit and count as wrong",
            "unanswered": "first steps have no answer and count as wrong",
            "ungraded": "first answers have no grade, so they may be right or wrong; give targets (--tasks)",
        }
        return [Defect(kind, counts[kind], detail) for kind, detail in details.items() if counts[kind]]
