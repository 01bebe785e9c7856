import math

import numpy as np
import pytest
from scipy.stats import binom

from justenough.calibration.thresholds import (
    EXPLANATIONS,
    METHODS,
    Bayes,
    Examples,
    Info,
    Mean,
    Method,
    Reason,
    RiskControlled,
    Universal,
)
from justenough.errors import InputError, NotEnoughExamples, NothingCertified
from justenough.stats import cohens_d
from tests.builders import examples

RIGHT, WRONG = [0.2, 0.3, 0.4, 0.3], [0.7, 0.9, 1.1]
EQUAL = [0.1, 0.2, 0.3]


def graded(right: list[float], wrong: list[float], *, harmful: int = 0, rescued: bool = True) -> Examples:
    """Labelled entropies with a last step: the first `harmful` of the wrong ones become right there."""
    given = examples(right, wrong)
    final = np.array([rescued] * len(right) + [number < harmful for number in range(len(wrong))], dtype=bool)
    return Examples(entropy=given.entropy, correct=given.correct, final=final)


def test_the_formulae_by_hand() -> None:
    given = examples(RIGHT, WRONG)
    mean, deviation, gap = 0.3, math.sqrt(0.02 / 3), 0.6
    d = gap / math.sqrt((3 * 0.02 / 3 + 2 * 0.04) / 5)
    assert cohens_d(given.right, given.wrong) == pytest.approx(d)
    assert Mean().fit(given).require() == pytest.approx(mean)
    assert Info().fit(given).require() == pytest.approx(mean + deviation * math.log(1 + d))
    assert Universal().fit(given).require() == pytest.approx(mean + d / (1 + d) * gap * (1 - deviation / mean))


def test_bayes_is_the_root_of_the_papers_quadratic_between_the_means() -> None:
    given = examples(RIGHT, WRONG)
    (mc, mi), (vc, vi) = (0.3, 0.9), (0.02 / 3, 0.04)
    a = 1 / vc - 1 / vi
    b = -2 * (mc / vc - mi / vi)
    c = mc**2 / vc - mi**2 / vi + 2 * math.log(math.sqrt(vc) * 3 / (math.sqrt(vi) * 4))
    roots = [(-b + sign * math.sqrt(b * b - 4 * a * c)) / (2 * a) for sign in (1, -1)]
    inside = [root for root in roots if mc <= root <= mi]
    assert len(inside) == 1
    assert Bayes().fit(given).require() == pytest.approx(inside[0], abs=1e-9)


def test_bayes_at_equal_variances_is_the_linear_root() -> None:
    wrong = [value + 0.5 for value in EQUAL * 2]
    outcome = Bayes().fit(examples(EQUAL, wrong))
    # Sample variances of three and of six equal values differ: 0.01 and 0.008; so scale the second set to match.
    assert outcome.reason == "ok"
    spread = math.sqrt(0.01 / 0.008)
    wrong = [0.7 + (value - 0.2) * spread for value in EQUAL * 2]
    expected = 0.45 + 0.01 * math.log(3 / 6) / 0.5
    assert Bayes().fit(examples(EQUAL, wrong)).require() == pytest.approx(expected, abs=1e-9)


EDGES: list[tuple[Method, Examples, Reason, float | None, int]] = [
    (Mean(), examples(RIGHT, []), "ok", 0.3, 0),
    (Mean(), examples([0.0], []), "ok", 0.0, 0),
    (Mean(), examples([], WRONG), "too_few_right", None, 1),
    (Mean(), examples([], []), "too_few_right", None, 1),
    (Mean(), examples([0.9, 1.1], [0.1, 0.2]), "ok", 1.0, 0),
    (Info(), examples([], WRONG), "too_few_right", None, 2),
    (Info(), examples([0.1], WRONG), "too_few_right", None, 1),
    (Info(), examples(RIGHT, []), "too_few_wrong", None, 2),
    (Info(), examples(RIGHT, [0.9]), "too_few_wrong", None, 1),
    (Info(), examples([0.2, 0.2], [0.9, 0.9]), "no_variance", None, 0),
    (Info(), examples([0.2, 0.2], [0.8, 1.0]), "ok", 0.2, 0),
    (Info(), examples(WRONG, RIGHT), "not_separating", None, 0),
    (Info(), examples([0.1, 0.3], [0.1, 0.3]), "not_separating", None, 0),
    (Bayes(), examples(RIGHT, [0.9]), "too_few_wrong", None, 1),
    (Bayes(), examples([0.1], WRONG), "too_few_right", None, 1),
    (Bayes(), examples([0.2, 0.2], [0.8, 1.0]), "no_variance", None, 0),
    (Bayes(), examples([0.0, 1e-160], [0.8, 1.0]), "no_variance", None, 0),
    (Bayes(), examples(WRONG, RIGHT), "not_separating", None, 0),
    (Bayes(), examples([0.1, 0.5], [0.35, 0.4, 0.45] * 8), "never_stop", None, 0),
    (Bayes(), examples([0.3, 0.4, 0.5] * 30, [0.3, 0.6]), "prior_dominates", None, 0),
    (Universal(), examples(RIGHT, [0.9]), "too_few_wrong", None, 1),
    (Universal(), examples([0.1], WRONG), "too_few_right", None, 1),
    (Universal(), examples([0.2, 0.2], [0.9, 0.9]), "no_variance", None, 0),
    (Universal(), examples(WRONG, RIGHT), "not_separating", None, 0),
    (Universal(), examples([0.0, 0.4], [0.8, 1.0]), "collapses_to_mean", 0.2, 0),
    (Universal(), examples([0.0, 0.0], [0.8, 1.0]), "collapses_to_mean", 0.0, 0),
    (RiskControlled(max_harm=0.05), examples(RIGHT, WRONG), "no_final_answers", None, 59),
    (RiskControlled(max_harm=0.05), graded([], []), "nothing_certified", None, 59),
    (RiskControlled(max_harm=0.05), graded([0.1] * 58, []), "nothing_certified", None, 1),
    (RiskControlled(max_harm=0.05), graded([0.1] * 58 + [0.3], []), "ok", 0.3, 0),
    (RiskControlled(max_harm=0.05), graded([0.3] * 58, [0.1], harmful=1), "nothing_certified", None, 0),
    (RiskControlled(max_harm=0.05), graded([0.3] * 58, [0.4], harmful=1), "ok", 0.3, 0),
    (RiskControlled(max_harm=0.05), graded([0.3] * 58, [0.3], harmful=1), "nothing_certified", None, 0),
]


@pytest.mark.parametrize(("method", "given", "reason", "threshold", "needed"), EDGES)
def test_every_edge_case_has_its_named_outcome(
    method: Method, given: Examples, reason: Reason, threshold: float | None, needed: int
) -> None:
    outcome = method.fit(given)
    assert (outcome.method, outcome.reason, outcome.needed) == (method.name, reason, needed)
    if threshold is None:
        assert outcome.threshold is None
    else:
        assert outcome.require() == pytest.approx(threshold)


def test_every_outcome_of_the_table_is_reached_above_and_explained() -> None:
    assert {reason for _, _, reason, _, _ in EDGES} == set(EXPLANATIONS)


def test_no_threshold_raises_and_says_how_many_examples_are_missing() -> None:
    with pytest.raises(NotEnoughExamples, match="label at least 2 more") as few:
        Info().fit(examples(RIGHT, [])).require()
    assert few.value.needed == 2
    with pytest.raises(NotEnoughExamples, match="wrong answers are no less sure"):
        Info().fit(examples(WRONG, RIGHT)).require()
    with pytest.raises(NothingCertified, match="58 more labels") as none:
        RiskControlled(max_harm=0.05).fit(graded([0.1], [])).require()
    assert none.value.needed == 58
    with pytest.raises(NothingCertified, match="last step"):
        RiskControlled().fit(examples(RIGHT, WRONG)).require()


@pytest.mark.parametrize(("max_harm", "labels"), [(0.01, 299), (0.02, 149), (0.05, 59)])
def test_labels_that_a_harmless_signal_takes(max_harm: float, labels: int) -> None:
    method = RiskControlled(max_harm=max_harm)
    assert method.labels_needed() == labels
    assert method.fit(graded([0.1] * labels, [])).reason == "ok"
    assert method.fit(graded([0.1] * (labels - 1), [])).needed == 1


def test_the_risk_controlled_threshold_is_the_largest_that_passes_the_exact_test_with_all_below() -> None:
    rng = np.random.default_rng(3)
    for n, epsilon, confidence in ((400, 0.05, 0.9), (150, 0.1, 0.95), (1000, 0.02, 0.95)):
        scores = np.round(rng.exponential(size=n), 1)
        correct = rng.random(n) < 0.6
        final = correct | (rng.random(n) < 0.25)
        method = RiskControlled(max_harm=epsilon, confidence=confidence)
        outcome = method.fit(Examples(entropy=scores, correct=correct, final=final))
        best = None
        for tau in np.unique(scores):
            harms = int(((scores <= tau) & final & ~correct).sum())
            if binom.cdf(harms, n, epsilon) > 1 - confidence:
                break
            best = float(tau)
        assert best is not None
        assert outcome.threshold == best
        assert outcome.guarantee is not None


@pytest.mark.parametrize(
    ("max_harm", "confidence"), [(0.0, 0.95), (1.0, 0.95), (0.1, 0.0), (0.1, 1.0), (math.nan, 0.9)]
)
def test_a_risk_outside_0_to_1_is_refused(max_harm: float, confidence: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        RiskControlled(max_harm=max_harm, confidence=confidence)


def test_examples_that_do_not_fit_together_are_refused() -> None:
    two, three = np.array([0.1, 0.2]), np.array([True, False, True])
    with pytest.raises(InputError, match="labels"):
        Examples(entropy=two, correct=three)
    with pytest.raises(InputError, match="last labels"):
        Examples(entropy=two, correct=three[:2], final=three)
    with pytest.raises(InputError, match="finite"):
        Examples(entropy=np.array([0.1, math.nan]), correct=three[:2])
    with pytest.raises(InputError, match="true or false"):
        Examples(entropy=two, correct=np.array([1, 0]))


def test_the_registry_names_its_methods() -> None:
    assert {name: make().name for name, make in METHODS.items()} == {name: name for name in METHODS}
