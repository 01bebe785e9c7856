import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from justenough.calibration.labelled import Labels, examples_of, gathered
from justenough.calibration.thresholds import EXPLANATIONS, METHODS, Examples, RiskControlled
from justenough.stats.sequence import BITS as GRID
from justenough.trace import Step
from tests.builders import SIGNAL, step, trace

values = st.one_of(
    st.floats(0, 10),
    st.sampled_from([0.0, 0.5, 1.0, 1.0 + 2**-52, 1e-160, 5e-324]),
)
samples = st.lists(st.tuples(values, st.booleans(), st.booleans()), max_size=14)
CARRYING = {"ok", "collapses_to_mean"}


@given(samples)
def test_no_small_sample_gives_a_nan_or_an_unnamed_outcome(sample: list[tuple[float, bool, bool]]) -> None:
    entropy = np.array([bits for bits, _, _ in sample], dtype=np.float64)
    correct = np.array([right for _, right, _ in sample], dtype=bool)
    final = np.array([last for _, _, last in sample], dtype=bool)
    given = Examples(entropy=entropy, correct=correct, final=final)
    for name, make in METHODS.items():
        outcome = make().fit(given)
        assert outcome.reason in EXPLANATIONS
        assert (outcome.threshold is not None) == (outcome.reason in CARRYING), (name, outcome)
        if outcome.threshold is None:
            continue
        assert math.isfinite(outcome.threshold)
        if name == "risk":
            assert outcome.threshold in entropy
        elif name == "net":
            assert outcome.threshold in GRID
        elif name == "mean":
            assert math.isclose(outcome.threshold, float(given.right.mean()))
        else:
            # No method but the mean may stop where a wrong answer is the typical one.
            slack = 1e-9
            assert outcome.threshold >= given.right.mean() - slack
            if name in ("bayes", "universal"):
                assert outcome.threshold <= given.wrong.mean() + slack


answered = st.sampled_from(["1", "2", "3", None])


@given(st.lists(st.tuples(answered, answered, st.floats(0, 4)), min_size=1, max_size=30), st.sampled_from(["1", "2"]))
def test_agreement_never_counts_fewer_harms_than_grades(
    rows: list[tuple[str | None, str | None, float]], target: str
) -> None:
    """So a certificate from agreement keeps its word without a label."""

    def given_answer(answer: str | None, bits: float) -> Step:
        return step(bits, answer=answer, correct=None if answer is None else answer == target)

    traces = [trace(given_answer(first, bits), given_answer(last, 0.0)) for first, last, bits in rows]
    kinds: tuple[Labels, Labels] = ("graded", "agreement")
    graded, agreed = (examples_of(gathered(traces, signal=SIGNAL).labelled, labels=labels) for labels in kinds)
    assert graded.final is not None
    assert agreed.final is not None
    assert not (graded.final & ~graded.correct & ~(agreed.final & ~agreed.correct)).any()
    certified = RiskControlled(max_harm=0.3, confidence=0.8)
    free, labelled = certified.fit(agreed).threshold, certified.fit(graded).threshold
    assert free is None or (labelled is not None and free <= labelled)
