"""The expected gain and cost of further steps, fitted on other problems: P(right | H) and lengths of steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from justenough.budget.curves import Floats, RightGivenEntropy, StepLength
from justenough.budget.ledger import Unit
from justenough.errors import BudgetError, NotEnoughExamples
from justenough.signal.signal import Signal
from justenough.trace.building import columns_of
from justenough.trace.columns import Columns
from justenough.trace.files import Traces, items_of

_SAMPLE: Final = 201


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """The knowledge of policies beforehand, from problems other than those that they serve."""

    right: tuple[tuple[RightGivenEntropy, ...], ...]
    """`right[j][m]`: P(right after step j+1+m | entropy after step j+1); triangular, K rows of K … 1."""
    tokens: tuple[StepLength, ...]
    """Expected length of steps 1 … K given the entropy of step 1."""
    sample: tuple[float, ...] = ()
    """Step-1 entropies of the fitted problems, ascending, at most 201 quantiles: online policies expect the same."""
    model: str | None = None
    signal: Signal | None = None
    fitted_on: tuple[str, ...] = ()
    """Hashed ids of the problems, sorted."""
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        steps = len(self.tokens)
        if not steps or tuple(len(row) for row in self.right) != tuple(range(steps, 0, -1)):
            raise BudgetError(
                f"{steps} step lengths and rows of {[len(row) for row in self.right]} probabilities",
                hint="K lengths and K rows of K … 1 probabilities",
            )

    @property
    def max_steps(self) -> int:
        """K."""
        return len(self.tokens)

    def check(self, *, model: str | None = None, signal: Signal | None = None, ids: Iterable[str] = ()) -> None:
        """Raise `BudgetError` if this was fitted on another model, on another signal, or on problems of these hashed
        ids, whose answers would be known beforehand."""
        if model is not None and self.model is not None and model != self.model:
            raise BudgetError(
                f"the expectation was fitted on {self.model}, the problems are answered by {model}",
                hint="P(right | H) differs from model to model: fit it on traces of this one",
            )
        own = self.signal
        if own is not None and signal is not None and (different := own.differences(signal, own="the expectation's")):
            raise BudgetError(
                f"the expectation was fitted on another signal: {'; '.join(different)}",
                hint="fit it on traces of the same signal",
            )
        if same := set(self.fitted_on).intersection(ids):
            raise BudgetError(
                f"the expectation was fitted on {len(same)} of these problems",
                hint="fit it on traces of other problems",
            )

    def first_step(self) -> tuple[float, float]:
        """Mean and standard deviation of a first step's tokens, before anything is known about the problem."""
        length = self.tokens[0]
        return float(length(np.asarray(self.sample or (0.0,))).mean()), length.spread

    def after(self, step: int, bits: float) -> list[float]:
        """P(right) after steps `step` … K, given the entropy after `step` (1-based)."""
        return [right.at(bits) for right in self.right[step - 1]]

    def matrix(self, entropy: Floats) -> tuple[Floats, Floats]:
        """P(right after step) and expected tokens of step, each (n, K), given step-1 entropies (n,)."""
        right = np.column_stack([curve(entropy) for curve in self.right[0]])
        return right, np.column_stack([length(entropy) for length in self.tokens])

    @classmethod
    def fit(cls, traces: Traces, *, signal: Signal | None = None, max_steps: int | None = None) -> Expectation:
        """Fit on traces with all steps recorded; a problem whose trace ends early keeps its last answer.

        Raises `NotEnoughExamples` if no step 1 has a usable signal. A curve that would rise with entropy is replaced by
        a flat one, with a note in `warnings`: a budget can be planned without a signal, but gains nothing from it.
        """
        if not traces:
            raise NotEnoughExamples("there is no trace to fit an expectation on", needed=10, hint="collect some first")
        columns = columns_of(items_of(traces), signal)
        models = sorted(set(columns.models))
        if len(models) > 1:
            raise BudgetError(
                f"the traces are of {len(models)} models: {', '.join(models)}", hint="fit each model apart"
            )
        steps = max_steps or columns.steps
        return cls.of_arrays(
            columns.padded_bits(steps=steps),
            columns.padded(columns.right, steps=steps),
            tokens_to(columns, steps),
            lengths=columns.lengths,
            model=models[0],
            signal=columns.signal,
            fitted_on=tuple(sorted(columns.hashed_ids)),
        )

    @classmethod
    def of_arrays(
        cls,
        bits: Floats,
        correct: NDArray[np.bool_],
        tokens: Floats,
        *,
        lengths: NDArray[np.int64],
        model: str,
        signal: Signal,
        fitted_on: tuple[str, ...],
    ) -> Expectation:
        """`fit` on the signal, the grading and `tokens_to` of each step, each (n, K), and the traces' lengths (n,)."""
        steps = bits.shape[1]
        usable = np.isfinite(bits)
        if not usable[:, 0].any():
            raise NotEnoughExamples(
                "no trace has a usable signal at step 1", needed=10, hint="collect with top_logprobs; see diagnose"
            )
        rows, warnings = [], []
        for step in range(steps):
            # If later steps have no signal, the signal of step 1 stands for them.
            source = step if usable[:, step].sum() >= 10 else 0
            measured = usable[:, source]
            curves = [
                RightGivenEntropy.fit_or_flat(bits[measured, source], correct[measured, m]) for m in range(step, steps)
            ]
            rows.append(tuple(curves))
        if rows[0][0].slope >= 0:
            warnings.append("the signal does not tell right from wrong at step 1: all problems are expected alike")
        increments = np.diff(tokens, axis=1, prepend=0.0)
        step_lengths = []
        for step in range(steps):
            measured = usable[:, 0] & (lengths > step)
            present = measured if measured.any() else usable[:, 0]
            step_lengths.append(StepLength.fit(bits[present, 0], increments[present, step]))
        first = np.sort(bits[usable[:, 0], 0])
        if len(first) > _SAMPLE:
            first = np.quantile(first, np.linspace(0, 1, _SAMPLE))
        return cls(
            right=tuple(rows),
            tokens=tuple(step_lengths),
            sample=tuple(first.tolist()),
            model=model,
            signal=signal,
            fitted_on=fitted_on,
            warnings=tuple(warnings),
        )


def assumed(first: RightGivenEntropy, *, tokens: Sequence[float], rescue: float = 0.5) -> Expectation:
    """Expectation from P(right | H) at step 1 and the lengths (K,): each further step corrects a share `rescue`."""
    if not 0 <= rescue <= 1:
        raise BudgetError(f"rescue is {rescue!r}", hint="the share of wrong answers that a step corrects, from 0 to 1")
    curves = [
        RightGivenEntropy(first.intercept, first.slope, first.n, first.n_right, first.unmended * (1 - rescue) ** m)
        for m in range(len(tokens))
    ]
    return Expectation(
        right=tuple(tuple(curves[: len(tokens) - step]) for step in range(len(tokens))),
        tokens=tuple(StepLength.constant(length) for length in tokens),
        warnings=(f"the gain of later steps is assumed, not fitted: each corrects {rescue:.0%} of the wrong answers",),
    )


def tokens_to(columns: Columns, steps: int) -> Floats:
    """Tokens spent up to each step, (n, K). They never fall: a shorter later probe does not give tokens back."""
    return np.maximum.accumulate(columns.spent(steps=steps).astype(np.float64), axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """One expectation for each problem, in a budget's unit and within the steps' token limits."""

    expectations: Sequence[Expectation] | None
    limits: tuple[int, ...]
    """Token limits of steps 1 … K."""
    unit: Unit

    def first(self) -> tuple[float, float]:
        """Mean and standard deviation of the cost of a first step, before anything is known about the problem."""
        if self.unit == "calls" or self.expectations is None:
            return 1.0, 0.0
        return self.expectations[0].first_step()

    def matrix(self, problems: Sequence[int], entropy: Floats) -> tuple[Floats | None, Floats]:
        """P(right) after each step and its expected cost, (n, K), given the step-1 entropies (n,) of some problems."""
        shape = (len(entropy), len(self.limits))
        if self.expectations is None:
            return None, np.ones(shape)
        right, cost = np.empty(shape), np.empty(shape)
        members: dict[int, list[int]] = {}
        for row, problem in enumerate(problems):
            members.setdefault(id(self.expectations[problem]), []).append(row)
        for rows in members.values():
            right[rows], cost[rows] = self.given(self.expectations[problems[rows[0]]], entropy[rows])
        return right, cost

    def given(self, expectation: Expectation, entropy: Floats) -> tuple[Floats, Floats]:
        """P(right) and expected cost (n, K) by one expectation."""
        right, lengths = (matrix[:, : len(self.limits)] for matrix in expectation.matrix(entropy))
        return right, np.ones_like(lengths) if self.unit == "calls" else np.minimum(lengths, self.limits)

    def later(self, problem: int, step: int, bits: float) -> list[float]:
        """P(right) after `step` … K, given the bits after it."""
        if self.expectations is None:
            return []
        return self.expectations[problem].after(step, bits)[: len(self.limits) - step + 1]
