"""Parts of a shared array behave as sequences of rows, and have the bits of `token_entropy`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from justenough.errors import LogprobsError
from justenough.signal.entropy import token_entropy
from justenough.trace.blocks import Block, Rows, view

VALUES = np.array([[-0.1, -3.0], [-0.5, -1.0], [-0.2, -2.0]])


def test_a_block_is_a_sequence_of_its_rows() -> None:
    block = Block(Rows(VALUES), 1, 3)
    assert (len(block), block.width) == (2, 2)
    assert list(block) == VALUES[1:].tolist()
    assert (block[0], block[-1:]) == ([-0.5, -1.0], [[-0.2, -2.0]])


@pytest.mark.parametrize("top_k", [None, 1, 2])
def test_the_bits_of_a_block_are_those_of_its_rows(top_k: int | None) -> None:
    bits = Block(Rows(VALUES), 1, 3).bits(tail="bucket", top_k=top_k)
    assert list(bits) == token_entropy(VALUES[1:], tail="bucket", top_k=top_k).tolist()


def test_a_row_that_cannot_be_measured_is_an_error_only_in_its_own_block() -> None:
    rows = Rows(np.vstack([VALUES, [-math.inf, -math.inf]]))
    assert len(Block(rows, 0, 3).bits(tail="renormalise", top_k=None)) == 3
    with pytest.raises(LogprobsError):
        Block(rows, 2, 4).bits(tail="renormalise", top_k=None)


def test_a_view_shares_the_memory_of_its_array() -> None:
    values = np.array([1.0, 2.0])
    shared = view(values)
    values[0] = 3.0
    assert shared.tolist() == [3.0, 2.0]
