"""The sentence at the end of a result that says what to do next."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from justenough.stats.text import counted

if TYPE_CHECKING:
    from justenough.calibration.calibration import Calibration
    from justenough.evaluation import Evaluation
    from justenough.evaluation.diagnosis import Diagnosis
    from justenough.signal.signal import Signal


def after_diagnosis(diagnosis: Diagnosis, traces: Path | None) -> str:
    """What to do with a model whose signal was diagnosed."""
    separation, file = diagnosis.separation, "TRACES" if traces is None else quote(str(traces))
    if diagnosis.steps == 1 and (diagnosis.advisable or not diagnosis.measured):
        mend = "" if diagnosis.measured else "mend the defects above, and "
        return f"next: {mend}{_more_steps(diagnosis.signal)}; a gate needs a step that it can leave out"
    if diagnosis.advisable:
        return f"next: justenough calibrate {file} --out calibration.json"
    if not diagnosis.measured:
        return (
            "next: mend the defects above; without grades, calibrate on agreement with the last answer:"
            f" justenough calibrate {file} --labels agreement --out calibration.json"
        )
    if separation.verdict == "cannot tell":
        return f"next: collect about {counted(separation.needed, 'more problem')} (--limit) and diagnose again"
    return "next: do not gate this model on this signal; only a certificate could allow it (calibrate --threshold risk)"


def after_calibration(calibration: Calibration, traces: Path, out: Path) -> str:
    """What to do with a new calibration."""
    if calibration.never_stops is not None:
        return f"next: do not use it: {calibration.never_stops}"
    drawn = calibration.rows is not None and calibration.n < calibration.rows
    file = quote(str(traces)) if drawn else "OTHER-TRACES"
    about = "the problems that were not drawn" if drawn else "other problems"
    return f"next: justenough evaluate {file} --calibration {quote(str(out))} to test it on {about}"


def after_evaluation(evaluation: Evaluation, calibration: Calibration | None, file: Path | None) -> str:
    """The answer of the report, and what to do about it."""
    from justenough.report.advice import advise, beaten_by

    gate = evaluation.thresholds.get(evaluation.method) if calibration is None else calibration.threshold
    advice = advise(evaluation, calibration, threshold=gate)
    if advice.answer == "No" and (better := beaten_by(evaluation)):
        step = f"use the simpler rule in place of this gate: --rule {better[0][0]} with collect, solve or serve"
    elif evaluation.steps == 1:
        step = _more_steps(evaluation.signal)
    elif advice.answer == "No":
        step = "do not use this gate on these problems"
    elif calibration is None:
        step = "justenough calibrate, and evaluate its file on other problems"
    elif advice.answer == "Not yet":
        step = "collect more problems (--limit) and evaluate again"
    elif calibration.shape == "streaming":
        step = f"justenough serve --upstream URL --calibration {quote(str(file))}"
    else:
        step = f"use it where further steps would follow: justenough solve or collect --gate {quote(str(file))}"
    return f"{advice.sentence}\nnext: {step}"


def _more_steps(signal: Signal) -> str:
    from justenough.calibration.calibration import MORE_STEPS

    return MORE_STEPS["sequential" if signal.splitter == "completion" else "streaming"]
