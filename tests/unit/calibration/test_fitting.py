"""What each method is fitted on: step 1 or every step, one run of each problem, and the level of its certificate."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from justenough.calibration.calibration import calibrate, calibration_from_json, load_calibration
from justenough.calibration.thresholds import Examples, Outcome, RiskControlled
from justenough.errors import GatingRefused, InputError, NotEnoughExamples, NothingCertified
from justenough.gate import DECIDES, Decide
from tests.builders import SIGNAL, population, step, trace

TRACES = population(200)
MADE = calibrate(TRACES)


@dataclass(frozen=True)
class Foreign:
    """A method of somebody else, with a certificate for step 1."""

    name: str = "foreign"

    def fit(self, examples: Examples) -> Outcome:
        return Outcome(method="foreign", threshold=0.5, reason="ok", guarantee="for step 1")


def test_a_foreign_certificate_is_for_the_first_step_only() -> None:
    assert calibrate(TRACES, method=Foreign()).guarantee == "for step 1"
    with pytest.raises(InputError, match="first step"):
        calibrate(TRACES, method=Foreign(), decide="every")


@pytest.mark.parametrize("method", ["mean", "info", "universal"])
def test_a_threshold_of_step_1_is_refused_for_every_step_and_the_change_is_shown(method: str) -> None:
    # A later step is sure of a wrong answer, and the last one is right.
    late = [
        replace(one, steps=(one.steps[0], step(0.01, answer="2", correct=False), step(0.1, answer="1", correct=True)))
        for one in TRACES
    ]
    missed = [one for one in late if (one.steps[0].bits(SIGNAL) or 0.0) > 0.3]
    with pytest.raises(GatingRefused, match=r"carries no promise for later steps: .* points \(harm") as refused:
        calibrate(late, method=method, decide="every")
    assert refused.value.hint is not None
    assert "--threshold risk" in refused.value.hint
    forced = calibrate(late, method=method, decide="every", force=True)
    assert forced.threshold == calibrate(late, method=method).threshold
    assert any(warning.startswith(f"forced: {method} is fitted on step 1") for warning in forced.warnings)
    if method == "mean":
        assert len(missed) > 50
        (shown,) = (warning for warning in forced.warnings if "forced" in warning)
        harm = sum((one.steps[0].bits(SIGNAL) or 0.0) > (forced.threshold or 0.0) for one in late) + sum(
            (one.steps[0].bits(SIGNAL) or 0.0) <= (forced.threshold or 0.0) and not one.steps[0].correct for one in late
        )
        assert f"{-harm / 2:+.1f} points (harm {harm}, rescue 0 of 200 problems)".replace("-", "−") in shown


def test_a_certificate_for_every_step_counts_the_harm_of_every_step() -> None:
    risk = RiskControlled(max_harm=0.2)
    first, every = (calibrate(TRACES, method=risk, decide=decide) for decide in DECIDES)
    assert first.guarantee == every.guarantee
    assert (every.decide, every.thresholds["risk"]) == ("every", every.threshold)
    # Here the second step is the last: stopping there costs nothing.
    assert every.threshold == pytest.approx(first.threshold, rel=0.1)
    surely_wrong = [
        replace(one, steps=(one.steps[0], step(0.0, answer="2", correct=False), step(0.1, answer="1", correct=True)))
        for one in TRACES
    ]
    with pytest.raises(NothingCertified):
        calibrate(surely_wrong, method=risk, decide="every")
    # Patience waits for two sure steps in a row, and the first of them is rarely sure here.
    assert calibrate(surely_wrong, method=risk, decide="every", patience=3).threshold is not None
    assert calibrate(surely_wrong, method=risk, decide="every", min_tokens=3).threshold is not None


def test_a_certificate_for_every_step_counts_the_problems_that_step_1_cannot_measure() -> None:
    blind = [trace(step(0.5, tokens=10), *one.steps, id=f"late-{one.id}") for one in TRACES]
    risk = RiskControlled(max_harm=0.2)
    made = calibrate([*TRACES, *blind], method=risk, decide="every")
    assert (made.n, made.rows, made.n_right + made.n_wrong) == (400, 400, 200)
    with pytest.raises(NotEnoughExamples, match="at step 1"):
        calibrate(blind, method=risk, decide="every")


@pytest.mark.parametrize("decide", DECIDES)
def test_repeated_problems_count_once_in_a_certificate(decide: Decide) -> None:
    """30 problems in 20 copies each are 30 problems: no certificate of 1 % at 95 %, which takes 299."""
    right = [one for one in TRACES if one.steps[0].correct][:30]
    copies = [replace(one, seed=seed) for one in right for seed in range(20)]
    with pytest.raises(NothingCertified) as refused:
        calibrate(copies, method="risk", decide=decide)
    assert refused.value.needed == 299 - 30
    with pytest.raises(NothingCertified):
        calibrate(copies, method="net", decide=decide)
    made = calibrate(copies, method=RiskControlled(max_harm=0.1), decide=decide)
    assert (made.n, made.rows, made.problems, len(made.fitted_on)) == (30, 600, 30, 30)
    assert made.warnings[0] == (
        "there are 600 runs of 30 problems: a certificate counts problems, so one run of each was drawn"
    )
    with pytest.raises(NotEnoughExamples):
        calibrate(copies, method=RiskControlled(max_harm=0.1), decide=decide, n=31)


def test_repeated_problems_are_a_warning_where_there_is_no_certificate() -> None:
    copies = [replace(one, seed=seed) for one in TRACES[:60] for seed in range(10)]
    made = calibrate(copies)
    assert (made.n, made.rows, made.problems, len(made.fitted_on)) == (600, 600, 60, 60)
    assert made.warnings[0] == "600 runs are of 60 problems: runs of one problem are not independent"
    assert made.threshold_outcomes["risk"] == "nothing_certified"
    # The run that is drawn depends on the seed.
    noisy = [
        replace(one, seed=seed, steps=(step(0.1 * seed + at / 100), *one.steps[1:]))
        for at, one in enumerate(TRACES[:60])
        for seed in range(10)
    ]
    risk = RiskControlled(max_harm=0.1)
    assert calibrate(noisy, method=risk, seed=1).data_fingerprint != calibrate(noisy, method=risk).data_fingerprint
    assert calibrate(noisy, method=risk) == calibrate(random.Random(1).sample(noisy, len(noisy)), method=risk)
    unnamed = [replace(one, seed=None) for one in noisy]
    assert calibrate(unnamed, method=risk) == calibrate(unnamed[::-1], method=risk)


def test_the_level_is_stored_and_holds_for_all_certificates_in_the_file(tmp_path: Path) -> None:
    assert (MADE.max_harm, MADE.confidence) == (0.01, 0.95)
    made = calibrate(TRACES, max_harm=0.2, confidence=0.9)
    risk = calibrate(TRACES, method=RiskControlled(max_harm=0.2, confidence=0.9))
    assert (risk.max_harm, risk.confidence) == (made.max_harm, made.confidence) == (0.2, 0.9)
    named = calibrate(TRACES, method="risk", max_harm=0.2, confidence=0.9)
    assert made.thresholds["risk"] == risk.threshold == named.threshold
    assert made.thresholds["net"] == risk.thresholds["net"]
    assert MADE.thresholds["risk"] is None
    risk.save(tmp_path / "calibration.json")
    assert load_calibration(tmp_path / "calibration.json") == risk
    # Older files do not have the level.
    old = {key: value for key, value in risk.to_json().items() if key not in ("max_harm", "confidence", "rows")}
    assert calibration_from_json(old) == replace(risk, max_harm=None, confidence=None, rows=None)


def test_planned_refits_share_the_error() -> None:
    alone, shared = (calibrate(TRACES, method="risk", max_harm=0.2, refits=refits) for refits in (1, 20))
    assert (alone.confidence, shared.confidence) == (0.95, 0.95)
    assert shared.threshold == calibrate(TRACES, method="risk", max_harm=0.2, confidence=1 - 0.05 / 20).threshold
    assert (shared.threshold or 0) < (alone.threshold or 0)
    assert shared.guarantee is not None
    assert "over 20 refits together" in shared.guarantee
