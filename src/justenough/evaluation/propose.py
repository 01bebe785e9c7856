"""A gate for one set of traces: fitted on a part of the problems, tested on the others, and the reason against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from justenough.calibration.calibration import Calibration, calibrate
from justenough.calibration.labelled import Labels
from justenough.errors import CalibrationError
from justenough.evaluation.evaluate import Evaluation, evaluate
from justenough.gate import Decide
from justenough.stats import problems_needed
from justenough.stats.text import percent, points
from justenough.trace import Trace

_TRIED: tuple[tuple[str, Decide], ...] = (("risk", "every"), ("mean", "first"))
"""A certificate for every step, else the paper's threshold for the first one."""


class Proposal(NamedTuple):
    """The gate with its test."""

    calibration: Calibration | None
    """None if none could be fitted."""
    evaluation: Evaluation | None
    """On the problems that the calibration was not fitted on."""
    objection: str | None
    """Why gating is not worth it, or not yet known to be, in one sentence; None if it is worth it."""
    undecided: bool = False
    """Whether more problems could still remove the objection."""


def propose(
    traces: Sequence[Trace], graded: Sequence[Trace], *, labels: Labels, max_harm: float, seed: int = 0
) -> Proposal:
    """Calibrate on half of the traces, and evaluate on the other half, `graded` by agreement if there are no grades.

    A gate is worth it if the interval of its saving is above 0 and its accuracy is at most `max_harm` lower. Without a
    certificate, the whole interval of the change must be above that limit; else the answer is still open. The choice of
    the method does not see the problems of the test.
    """
    calibration, refusal = None, ""
    for method, decide in _TRIED:
        try:
            calibration = calibrate(
                traces,
                method=method,
                decide=decide,
                labels=labels,
                max_harm=max_harm,
                n=(len(traces) + 1) // 2,
                seed=seed,
            )
        except CalibrationError as error:
            refusal = str(error)
            continue
        if calibration.never_stops is None:
            break
    if calibration is None:
        return Proposal(None, None, f"there is no threshold to trust: {refusal}")
    evaluation = evaluate(graded, calibration=calibration, rules="all-steps", margin=max_harm, draws=1, seed=seed)
    objection = _objection(calibration, evaluation, max_harm=max_harm)
    if calibration.guarantee is not None:
        return Proposal(calibration, evaluation, objection)
    if objection is not None:
        objection += "; more problems (--limit) could give a certificate for every step"
        return Proposal(calibration, evaluation, objection)
    doubt = _doubt(evaluation, max_harm=max_harm, total=len(traces))
    return Proposal(calibration, evaluation, doubt, undecided=doubt is not None)


def _objection(calibration: Calibration, evaluation: Evaluation, *, max_harm: float) -> str | None:
    saving, change = evaluation.gated.saving, evaluation.gated.accuracy_change
    if calibration.never_stops is not None:
        return calibration.never_stops
    if saving is None or saving.low is None or saving.low <= 0:
        value = None if saving is None else saving.value
        return f"on {evaluation.problems} other problems the gate saves {percent(value)} of the tokens, which may be 0"
    if change.value < -max_harm:
        return f"on {evaluation.problems} other problems the gate changes the accuracy by {points(change)} points"
    return None


def _doubt(evaluation: Evaluation, *, max_harm: float, total: int) -> str | None:
    """Why the test has too few problems for an answer; None if it has enough."""
    low, n = evaluation.gated.accuracy_change.low, evaluation.problems
    if low is not None and low >= -max_harm:
        return None
    harm, rescue, more = evaluation.gated.harm, evaluation.gated.rescue, "more problems (--limit)"
    if (
        harm is not None
        and rescue is not None
        and (needed := problems_needed(rescue.value * n, harm.value * n, n, margin=max_harm))
    ):
        # Half of the problems are for the test.
        further = 2 * (needed - n)
        more = f"about {further} further problems (--limit {total + further})"
    loss = f"a loss of more than {100 * max_harm:g} points is still possible"
    return f"on {n} other problems {loss}; {more} could rule it out"
