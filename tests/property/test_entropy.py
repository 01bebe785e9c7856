import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import entropy as scipy_entropy

from justenough.signal.entropy import RunningEntropy, Tail, entropy_of, sequence_entropy, token_entropy
from justenough.signal.pooling import POOLINGS, Measured, pool

CLOSE = 1e-9
weights = st.one_of(st.floats(-30, 0), st.just(-math.inf), st.sampled_from([-1.0, -2.0]))
rows = st.lists(weights, min_size=1, max_size=64).filter(lambda row: max(row) > -math.inf)
bits = st.floats(0, 20)


def normalised(row: list[float], mass: float = 1.0) -> list[float]:
    """Log-probabilities that sum to `mass`."""
    values = np.asarray(row) - logsumexp(row) + math.log(mass)
    return [float(value) for value in np.minimum(values, 0.0)]


@given(rows, st.floats(0.01, 1))
def test_every_tail_stays_within_its_bounds_and_agrees_with_scipy(row: list[float], mass: float) -> None:
    part = normalised(row, mass)
    share = np.exp(part)
    possible = int(np.count_nonzero(share))
    renormalised, bucket = entropy_of(part), entropy_of(part, tail="bucket")
    assert 0 <= renormalised <= math.log2(possible) + CLOSE
    assert 0 <= bucket <= math.log2(possible + 1) + CLOSE
    assert math.isclose(renormalised, float(scipy_entropy(share, base=2)), abs_tol=CLOSE)
    rest = max(0.0, 1 - float(share.sum()))
    assert math.isclose(bucket, float(scipy_entropy([*share, rest], base=2)), abs_tol=1e-7)


@given(rows)
def test_full_is_bounded_by_the_vocabulary_and_equals_the_others_there(row: list[float]) -> None:
    whole = normalised(row)
    full = entropy_of(whole, tail="full")
    assert 0 <= full <= math.log2(len(whole)) + CLOSE
    assert full == entropy_of(whole)
    assert math.isclose(full, entropy_of(whole, tail="bucket"), abs_tol=1e-7)


@given(st.data(), rows, st.sampled_from(["renormalise", "bucket"]), st.integers(1, 70))
def test_the_order_of_entries_does_not_matter(data: st.DataObject, row: list[float], tail: Tail, top_k: int) -> None:
    part = normalised(row, 0.9)
    mixed = data.draw(st.permutations(part))
    assert math.isclose(
        entropy_of(part, tail=tail, top_k=top_k), entropy_of(mixed, tail=tail, top_k=top_k), abs_tol=CLOSE
    )


@given(st.integers(1, 80), st.integers(1, 33), st.integers(0, 2**32 - 1), st.sampled_from(["renormalise", "bucket"]))
def test_a_row_of_a_block_has_the_very_bits_of_its_token(tokens: int, k: int, seed: int, tail: Tail) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, rng.choice([0.5, 5.0, 50.0]), size=(tokens, k))
    block = logits - logsumexp(logits, axis=1, keepdims=True) - rng.choice([0.0, 0.7])
    block = np.minimum(block, 0.0)
    block[rng.random(block.shape) < 0.1] = -math.inf
    block[:, 0] = np.maximum(block[:, 0], -30.0)
    for top_k in (None, 5, 20):
        whole = token_entropy(block, tail=tail, top_k=top_k).tolist()
        assert [entropy_of(row, tail=tail, top_k=top_k) for row in block.tolist()] == whole


@given(st.lists(bits, min_size=1, max_size=200))
def test_running_and_whole_means_agree_to_the_last_bit(values: list[float]) -> None:
    running = RunningEntropy()
    for count, value in enumerate(values, 1):
        running.add(value)
        assert running.mean == math.fsum(values[:count]) / count
    assert sequence_entropy(values) == running.mean
    assert sequence_entropy(reversed(values)) == running.mean


@given(st.lists(bits, min_size=1, max_size=80), st.sampled_from(sorted(POOLINGS)))
def test_poolings_stay_within_the_range_of_their_tokens(values: list[float], pooling: str) -> None:
    pooled = pool(Measured(values), pooling)
    if pooled is None:
        # It needs more than entropies.
        assert POOLINGS[pooling].needs != "entropies"
    elif pooling == "sum":
        assert pooled == math.fsum(values)
    else:
        assert min(values) - CLOSE <= pooled <= max(values) + CLOSE
