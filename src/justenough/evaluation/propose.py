"""A gate for one set of traces: fitted on a part of the problems, tested on the others, and the reason against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from justenough.calibration.calibration import Calibration, calibrate
from justenough.calibration.labelled import Labels
from justenough.errors import CalibrationError
from justenough.evaluation.evaluate import Evaluation, evaluate
from justenough.gate import Decide
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
    """Why gating is not worth it, in one sentence; None if it is."""


def propose(
    traces: Sequence[Trace], graded: Sequence[Trace], *, labels: Labels, max_harm: float, seed: int = 0
) -> Proposal:
    """Calibrate on half of the traces, and evaluate on the other half, `graded` by agreement if there are no grades.

    A gate is worth it if the interval of its saving is above 0 and its accuracy is at most `max_harm` lower. The choice
    of the method does not see the problems of the test.
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
    if objection is not None and calibration.guarantee is None:
        objection += "; more problems (--limit) could give a certificate for every step"
    return Proposal(calibration, evaluation, objection)


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
