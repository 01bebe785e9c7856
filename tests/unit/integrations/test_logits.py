"""Entropy over the vocabulary: CPU path and Triton kernel against float64."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from justenough.signal.entropy import token_entropy

pytest.importorskip("torch", reason="torch is not installed")

import torch

from justenough.integrations.logits import Vocabulary, entropy_bits, measure, plain, top_logprobs

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = importlib.util.find_spec("triton") is not None


def in_triton(logits: torch.Tensor) -> Vocabulary:
    if not INTERPRETED:
        pytest.skip("runs in Triton's interpreter, see test_the_kernel_passes_these_tests_in_the_interpreter")
    from justenough.integrations.kernel import measure as kernel

    return kernel(logits)


WAYS = pytest.mark.parametrize("way", [measure, in_triton], ids=["cpu", "triton"])
Way = Callable[[torch.Tensor], Vocabulary]


def rows(*shape: int, scale: float = 4.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def assert_close(values: Vocabulary, logits: torch.Tensor, *, bits: float) -> None:
    expected = plain(logits.double())
    assert (values.bits.double() - expected.bits).abs().max() <= bits
    torch.testing.assert_close(values.logsumexp.double(), expected.logsumexp, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(values.top.double(), expected.top, rtol=1e-5, atol=0)


@WAYS
@pytest.mark.parametrize("scale", [0.0, 0.1, 4.0, 40.0])
@pytest.mark.parametrize("columns", [1, 2, 282, 1024, 32_003])
def test_float32_is_exact_to_a_hundred_thousandth_of_a_bit(way: Way, scale: float, columns: int) -> None:
    logits = rows(3, columns, scale=scale)
    assert_close(way(logits), logits, bits=1e-5)


@WAYS
def test_bfloat16_is_exact_to_a_thousandth_of_a_bit(way: Way) -> None:
    logits = rows(3, 32_000).bfloat16()
    assert_close(way(logits), logits, bits=1e-3)


@WAYS
def test_any_stride_is_read(way: Way) -> None:
    logits = rows(500, 6).T[::2]
    assert not logits.is_contiguous()
    assert_close(way(logits), logits, bits=1e-5)


@WAYS
def test_a_forbidden_token_has_no_probability(way: Way) -> None:
    logits = rows(2, 3000)
    logits[0, ::2] = -math.inf
    logits[1] = -math.inf
    logits[1, 5] = -3.0
    assert_close(way(logits), logits, bits=1e-5)
    assert way(logits).bits[1] == 0.0


@WAYS
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_with_a_bad_value_has_no_entropy_and_leaves_the_other_rows_alone(way: Way, bad: float) -> None:
    logits = rows(3, 5000)
    logits[1, 4321] = bad
    values = way(logits)
    assert values.bits[1].isnan()
    torch.testing.assert_close(values.bits[[0, 2]], way(logits[[0, 2]]).bits)


@WAYS
def test_a_row_without_any_mass_has_no_entropy(way: Way) -> None:
    assert way(torch.full((1, 40), -math.inf)).bits.isnan().all()


@WAYS
def test_far_from_zero_is_as_exact(way: Way) -> None:
    logits = rows(2, 4096) + 1e4
    assert_close(way(logits), logits, bits=1e-5)


def test_no_row_is_no_value() -> None:
    assert measure(torch.empty(0, 7)).bits.shape == (0,)


def test_bits_are_those_of_the_whole_vocabularys_log_probabilities() -> None:
    logits = rows(4, 282)
    logits[2, 7] = math.nan
    bits = entropy_bits(logits)
    assert bits[2] is None
    block = torch.log_softmax(logits[[0, 1, 3]].double(), -1).numpy()
    expected = token_entropy(block, tail="full")
    assert [bits[0], bits[1], bits[3]] == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_largest_log_probabilities_are_a_servers() -> None:
    logits = rows(2, 282)
    expected = torch.log_softmax(logits, -1).sort(descending=True).values[:, :20].tolist()
    assert top_logprobs(logits, 20) == expected
    assert [len(row) for row in top_logprobs(logits, 1000)] == [282, 282]


@pytest.mark.parametrize("columns", [16_384, 16_447, 49_152])
@pytest.mark.parametrize("top_k", [1, 20, 300])
def test_the_largest_log_probabilities_of_a_large_vocabulary_are_the_same_bit_for_bit(columns: int, top_k: int) -> None:
    logits = rows(columns, 5).T
    logits[1] = logits[1].round()
    logits[2, 30:] = -math.inf
    logits[3] = logits[3].sort().values
    expected = torch.log_softmax(logits, -1).topk(top_k).values
    assert torch.equal(torch.tensor(top_logprobs(logits, top_k)), expected)


def test_no_row_of_a_large_vocabulary_has_no_log_probability() -> None:
    assert top_logprobs(torch.zeros(0, 20_000), 20) == []


def test_a_bad_value_in_a_large_vocabulary_leaves_no_log_probability() -> None:
    logits = rows(2, 20_000)
    logits[1, 19_990] = math.nan
    good, bad = top_logprobs(logits, 20)
    assert math.isfinite(sum(good))
    assert all(math.isnan(value) for value in bad)


@pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed: `make test-vllm-v2` has it")
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_the_kernel_passes_these_tests_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-k", "triton and not interpreter", __file__]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped" not in done.stdout
