"""Entropy over the vocabulary in one pass over the logits, in Triton. Needs a GPU, or Triton's interpreter."""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl

from justenough.integrations.logits import Vocabulary, assembled

BLOCK: Final = 1024
_PROGRAMS: Final = 264
"""Programs that keep a large GPU busy: with few rows each row is split into several parts."""


@triton.jit  # type: ignore[untyped-decorator]
def _parts(logits, most_out, mass_out, moment_out, row_stride, column_stride, columns, span, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """The maximum m, Σ exp(l - m) and Σ exp(l - m)·(l - m) of one part of one row; each lane has its own maximum."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    begin = part * span
    end = tl.minimum(begin + span, columns)
    lanes = tl.arange(0, WIDTH)
    most = tl.full((WIDTH,), float("-inf"), tl.float32)
    mass = tl.zeros((WIDTH,), tl.float32)
    moment = tl.zeros((WIDTH,), tl.float32)
    bad = tl.zeros((WIDTH,), tl.int32)
    for at in range(begin, end, WIDTH):
        place = (at + lanes).to(tl.int64)
        value = tl.load(logits + row * row_stride + place * column_stride, mask=place < end, other=float("-inf")).to(
            tl.float32
        )
        wrong = (value != value) | (value == float("inf"))
        bad = bad | wrong.to(tl.int32)
        value = tl.where(wrong, float("-inf"), value)
        higher = tl.maximum(most, value)
        centre = tl.where(higher == float("-inf"), 0.0, higher)
        old = tl.exp(most - centre)
        new = tl.exp(value - centre)
        # 0 · -inf would be a NaN.
        lowered = tl.where(old > 0, most - centre, 0.0)
        shifted = tl.where(new > 0, value - centre, 0.0)
        moment = old * (moment + mass * lowered) + new * shifted
        mass = old * mass + new
        most = higher
    highest = tl.max(most, axis=0)
    centre = tl.where(highest == float("-inf"), 0.0, highest)
    weight = tl.exp(most - centre)
    lowered = tl.where(weight > 0, most - centre, 0.0)
    total = tl.sum(weight * (moment + mass * lowered), axis=0)
    place = row * tl.num_programs(1) + part
    tl.store(most_out + place, highest)
    tl.store(mass_out + place, tl.where(tl.max(bad, axis=0) > 0, float("nan"), tl.sum(weight * mass, axis=0)))
    tl.store(moment_out + place, total)


def measure(logits: torch.Tensor) -> Vocabulary:
    """Measure logits (R, V) of any floating type and stride; the parts of a row are joined in float64."""
    rows, columns = logits.shape
    blocks = triton.cdiv(columns, BLOCK)
    parts = max(1, min(blocks // 4, _PROGRAMS // max(rows, 1)))
    span = triton.cdiv(blocks, parts) * BLOCK
    parts = triton.cdiv(columns, span)
    out = torch.empty((3, rows, parts), dtype=torch.float32, device=logits.device)
    if rows:
        _parts[(rows, parts)](logits, out[0], out[1], out[2], logits.stride(0), logits.stride(1), columns, span, BLOCK)
    most, mass, moment = out.double()
    highest = most.amax(-1, keepdim=True)
    weight = (most - highest).exp()
    lowered = (most - highest).masked_fill(weight == 0, 0.0)
    joined = assembled(highest[:, 0], (weight * mass).sum(-1), (weight * (moment + mass * lowered)).sum(-1))
    return Vocabulary(*(values.float() for values in joined))
