"""Measures rows of logits in PyTorch: entropy over the whole vocabulary, or the largest log-probabilities.

A row that contains NaN or +inf, or nothing above -inf, has no entropy. It never becomes a small one by accident.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import torch

_LN2: Final = math.log(2)
_BLOCK: Final = 64
_MANY: Final = 16_384
"""From this width on, the largest entries of each block are compared first: on a CPU that takes half as long."""


class Vocabulary(NamedTuple):
    """Values of rows of logits (R, V), each of shape (R,); NaN where a row has none."""

    logsumexp: torch.Tensor
    bits: torch.Tensor
    """Entropy over the whole vocabulary."""
    top: torch.Tensor
    """Probability of the most likely token."""


def measure(logits: torch.Tensor) -> Vocabulary:
    """Measure logits (R, V) of any floating type and stride, in one pass on a GPU and in float32 on a CPU."""
    if logits.is_cuda:
        from justenough.integrations.kernel import measure as in_triton

        return in_triton(logits)
    return plain(logits.float())


def plain(logits: torch.Tensor) -> Vocabulary:
    """Measure logits (R, V) in their own type; in float64 this is the reference for every other way."""
    most = logits.amax(-1, keepdim=True)
    shifted = logits - most
    weights = shifted.exp()
    mass = weights.sum(-1)
    # 0 · -inf would be a NaN.
    moment = (weights * shifted.masked_fill(weights == 0, 0.0)).sum(-1)
    return assembled(most[:, 0], mass, moment)


def assembled(most: torch.Tensor, mass: torch.Tensor, moment: torch.Tensor) -> Vocabulary:
    """The values, from the maximum m, `Σ exp(l - m)` and `Σ exp(l - m)·(l - m)` of each row."""
    log_mass = mass.log()
    return Vocabulary(most + log_mass, ((log_mass - moment / mass) / _LN2).clamp_min(0.0), 1 / mass)


def entropy_bits(logits: torch.Tensor) -> list[float | None]:
    """Bits over the whole vocabulary for each row; None where there is no entropy."""
    return [None if math.isnan(bits) else bits for bits in measure(logits).bits.tolist()]


def top_logprobs(logits: torch.Tensor, top_k: int) -> list[list[float]]:
    """The largest natural log-probabilities of each row, in falling order: those that a server returns."""
    logprobs = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    columns = logits.shape[-1]
    if columns >= max(_MANY, _BLOCK * top_k) and not logits.is_cuda:
        logprobs = _candidates(logprobs, top_k)
    rows: list[list[float]] = logprobs.topk(min(top_k, columns)).values.tolist()
    return rows


def _candidates(values: torch.Tensor, count: int) -> torch.Tensor:
    """The blocks of values (R, V) that hold the `count` largest of each row, and the columns that fill no block."""
    whole = values.shape[-1] // _BLOCK * _BLOCK
    blocks = values[:, :whole].reshape(len(values), whole // _BLOCK, _BLOCK)
    best = blocks.amax(-1).topk(count, sorted=False).indices
    chosen = blocks.gather(1, best[:, :, None].expand(-1, -1, _BLOCK))
    return torch.cat((chosen.flatten(1), values[:, whole:]), dim=-1)
