import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from justenough.certified import GRID
from justenough.thresholds import EXPLANATIONS, METHODS, Examples

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
