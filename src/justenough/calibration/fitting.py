"""Fits the threshold methods on labelled runs, for step 1 or for every step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from justenough.calibration.certified import CONFIDENCE, MAX_HARM, Certified, Checkpoints, RiskControlled
from justenough.calibration.decider import Decider, fit_decider
from justenough.calibration.examples import Bools, Examples, Floats, Method, Outcome
from justenough.calibration.labelled import Labelled, Labels, checkpoints_of, examples_of, split, stopping_scores
from justenough.errors import GatingRefused, InputError
from justenough.gate import Decide
from justenough.stats import Separation
from justenough.stats.sequence import quantile_grid
from justenough.stats.text import number, signed

_POINTS: Final = 200
"""Thresholds of a decider's grid."""
_UNLIKELY: Final = 0.5
"""Largest P(the last answer is right) at which a run may count as hopeless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The runs on which all methods are fitted, and where the gate may stop them."""

    runs: Labelled
    labels: Labels
    decide: Decide
    min_tokens: int
    patience: int
    seed: int

    @property
    def certifying(self) -> Labelled:
        """One run of each problem, because a certificate counts problems."""
        return self.runs.one_run_each(seed=self.seed)

    def checkpoints(self, decide: Decide) -> Checkpoints | None:
        """Where the gate may stop, and what that costs; None where the last steps are not graded."""
        return checkpoints_of(
            self.certifying,
            labels=self.labels,
            decide=decide,
            min_tokens=self.min_tokens,
            patience=self.patience if decide == "every" else 1,
        )

    def outcomes(self, methods: list[Method]) -> dict[str, Outcome]:
        """Each method's threshold; those with a certificate have it for the steps that decide."""
        examples = examples_of(self.runs.opening, labels=self.labels)
        opening = examples_of(self.certifying.opening, labels=self.labels)
        checkpoints = self.checkpoints(self.decide) if self.decide == "every" or self.min_tokens else None
        return {method.name: self._outcome(method, examples, opening, checkpoints) for method in methods}

    def _outcome(
        self, method: Method, examples: Examples, opening: Examples, checkpoints: Checkpoints | None
    ) -> Outcome:
        if not isinstance(method, Certified):
            return method.fit(examples)
        # With a minimum of tokens rescue is rarer too, so the net change after step 1 must be counted anew.
        if self.decide == "first" and (not self.min_tokens or isinstance(method, RiskControlled)):
            return method.fit(opening)
        return method.ungraded() if checkpoints is None else method.fit_every(checkpoints)

    def stopped(self, threshold: float | None, decider: Decider | None) -> int:
        """Number of runs that a threshold stops before their last step."""
        if threshold is None:
            return 0
        columns = self.runs.columns
        scores = columns.bits if decider is None else _scores(decider, self.runs)
        levels = stopping_scores(
            self.runs, scores, decide=self.decide, min_tokens=self.min_tokens, patience=self.patience
        )
        stops = levels <= threshold
        stops[columns.last(self.runs.max_steps)] = False
        return int(np.logical_or.reduceat(stops, columns.first).sum())

    def decided(self, method: RiskControlled, *, limit: int, give_up: bool) -> Decided:
        """A decider that is fitted on half of the problems, and its certificate on the other half.

        The first half fixes a sequence of settings: a threshold of the decider and, with `give_up`, one of the outlook.
        The second half certifies the last setting that passes.
        """
        fitting, rest = split(self.certifying, len(self.certifying) // 2, seed=self.seed)
        columns = fitting.columns
        own, others = checkpoints_of(fitting, labels=self.labels), checkpoints_of(rest, labels=self.labels)
        if own is None or others is None:
            raise replace(method.ungraded(), method="decider").failure()
        history = own.scores, columns.tokens.astype(np.float64), own.starts
        decider = fit_decider(*history, own.harms, limit=limit)
        scores = _scores(decider, fitting)
        thresholds, limits, outlook = quantile_grid(scores, _POINTS), None, None
        ranks = np.searchsorted(thresholds, _scores(decider, rest)).astype(np.float64)
        if give_up:
            outlook = fit_decider(*history, _last_right(fitting), limit=limit)
            limits = _limits(own, thresholds, scores, _scores(outlook, fitting))
            ranks = np.minimum(ranks, np.searchsorted(limits, _scores(outlook, rest)))
        ranks[np.isnan(rest.columns.bits)] = math.nan
        ranks = stopping_scores(rest, ranks, decide="every", min_tokens=self.min_tokens, patience=self.patience)
        outcome = method.fit_every(replace(others, scores=ranks), grid=np.arange(len(thresholds), dtype=np.float64))
        if outcome.threshold is None:
            # As many labels again fit the decider.
            missing = max(0, 2 * method.labels_needed() - 1 - len(self.certifying))
            return Decided(outcome=replace(outcome, method="decider", needed=missing), decider=decider)
        place = int(outcome.threshold)
        certified = replace(outcome, method="decider", threshold=float(thresholds[place]))
        if limits is None or limits[place] < 0:
            return Decided(outcome=certified, decider=decider)
        return Decided(outcome=certified, decider=decider, outlook=outlook, give_up=float(limits[place]))

    def later_steps(self, outcome: Outcome, *, force: bool) -> list[str]:
        """The warning about a threshold that is fitted on step 1 and decides later too; raises unless `force`."""
        message = f"{outcome.method} is fitted on step 1 and carries no promise for later steps"
        changes = [self.change(decide, outcome.threshold) for decide in ("every", "first")]
        if all(changes):
            message += f": on these examples the change in accuracy is {changes[0]}, with `first` {changes[1]}"
        if not force:
            raise GatingRefused(
                message, hint="--threshold risk certifies every step; --force calibrates without a promise"
            )
        return [f"forced: {message}"]

    def change(self, decide: Decide, threshold: float | None) -> str | None:
        """The change in accuracy that a threshold makes on the examples; None where it cannot be known."""
        checkpoints = self.checkpoints(decide)
        if threshold is None or checkpoints is None:
            return None
        harms, rescues = (int(count[0]) for count in checkpoints.counts(np.array([threshold])))
        change = 100 * (rescues - harms) / len(checkpoints)
        return f"{signed(change)} points (harm {harms}, rescue {rescues} of {len(checkpoints)} problems)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A certified decider, with its outlook where it may give up."""

    outcome: Outcome
    decider: Decider
    outlook: Decider | None = None
    """None where it never gives up."""
    give_up: float | None = None


def _scores(decider: Decider, part: Labelled) -> Floats:
    columns = part.columns
    return decider.scores(columns.bits, columns.tokens.astype(np.float64), columns.first)


def _last_right(part: Labelled) -> Bools:
    """Whether the last answer is right, at each checkpoint (m,)."""
    columns = part.columns
    return columns.right[columns.last(part.max_steps)].repeat(columns.lengths)


def _limits(own: Checkpoints, thresholds: Floats, scores: Floats, outlooks: Floats) -> Floats:
    """The outlook's threshold for each of the decider's: on the fitting part it does no more harm than that one."""
    candidates = quantile_grid(outlooks, _POINTS)
    grid = np.concatenate(([-1.0], candidates[candidates <= _UNLIKELY]))
    confident, hopeless = (
        np.maximum.accumulate(replace(own, scores=values).counts(at)[0])
        for values, at in ((scores, thresholds), (outlooks, grid))
    )
    # The first limit is below every outlook, so it never gives up and does no harm.
    limits: Floats = grid[np.searchsorted(hopeless, confident, side="right") - 1]
    return limits


def require_later_steps(patience: int, decide: Decide) -> None:
    """Raise `InputError` for a patience that waits for steps after which the gate never decides."""
    if patience > 1 and decide == "first":
        raise InputError(
            f"patience {patience} waits for later steps, and only the first decides", hint="--decide every"
        )


def level_of(method: str | Method, max_harm: float | None, confidence: float | None) -> tuple[float, float]:
    """The largest harm and the confidence of certificates: the method's own, the arguments, or the defaults."""
    if isinstance(method, Certified):
        return method.max_harm, method.confidence
    return MAX_HARM if max_harm is None else max_harm, CONFIDENCE if confidence is None else confidence


def repeats(labelled: Labelled, drawn: Labelled, *, certified: bool) -> list[str]:
    """The warning about several runs of one problem."""
    if labelled.problems == len(labelled):
        return []
    if certified:
        return [
            f"there are {len(labelled)} runs of {labelled.problems} problems: a certificate counts problems,"
            " so one run of each was drawn"
        ]
    return [f"{len(drawn)} runs are of {drawn.problems} problems: runs of one problem are not independent"]


def uncertified(evidence: Separation, *, force: bool) -> list[str]:
    """The warnings about the separation without a certificate; raises where gating is refused, unless `force`."""
    if evidence.gating_refused:
        figures = {"d": evidence.cohens_d, "AUROC": evidence.auroc, "AUROC within groups": evidence.within_groups}
        shown = [f"{name} {number(one.value, digits=3)}" for name, one in figures.items() if one is not None]
        message = f"gating is not advisable: the signal's separation is {', '.join([evidence.verdict, *shown])}"
        message += f"; {evidence.shortfall}"
        if not force:
            raise GatingRefused(
                message,
                hint="see `justenough diagnose`; --force calibrates all the same, --threshold risk asks for a"
                " certificate instead",
            )
        return [f"forced: {message}"]
    if evidence.verdict not in ("cannot tell", "weak"):
        return []
    return ["; ".join(filter(None, [f"separation: {evidence.sentence}", evidence.shortfall]))]
