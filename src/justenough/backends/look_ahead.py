"""Learns AdaDec's threshold (arXiv 2506.08980).

The method is that of the publication. The model reads right texts token by token. Each position gives the entropy of
the prediction, and whether the token of the text is ranked first. Four fifths of the positions, balanced between both
kinds, fit a logistic regression. The last fifth selects the probability that separates the two kinds most often. The
threshold is the entropy at which the regression gives that probability.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from justenough.backends.adadec import AdaDecBackend
from justenough.backends.protocol import Message
from justenough.backends.registry import Options
from justenough.errors import InputError
from justenough.files import load_json, read_as
from justenough.signal.entropy import token_entropy
from justenough.stats.drawing import generator
from justenough.stats.logistic import logistic
from justenough.trace import Trace

if TYPE_CHECKING:
    from justenough.backends.transformers import Checkpoint

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_HINT: Final = "learn it: justenough exits look-ahead TRACES --model PATH, or give @BITS"


@dataclass(frozen=True, slots=True)
class Learned:
    """A threshold with the data behind it."""

    threshold: float
    """Bits."""
    probability: float
    """The regression predicts "ranked first" from this probability on."""
    positions: int
    misranked: int
    accuracy: float
    """Share of held-out positions that the threshold classifies correctly."""


def learn(bits: Floats, first: Bools, *, seed: int = 0) -> Learned:
    """The threshold from positions (n,).

    Raises `InputError` if all or none of them are ranked first, or if more entropy does not make that rarer.
    """
    order = generator(seed).permutation(len(bits))
    held, fitted = order[: len(bits) // 5], order[len(bits) // 5 :]
    right, wrong = fitted[first[fitted]], fitted[~first[fitted]]
    size = min(len(right), len(wrong))
    if not size or not len(held):
        raise InputError("the regression needs positions of both kinds", hint="give more right answers")
    balanced = np.concatenate([right[:size], wrong[:size]])
    # The slope is shrunk by w²/2, the intercept is free.
    intercept, slope = logistic(bits[balanced][:, None], first[balanced], penalty=(0.0, 1.0)).tolist()
    if slope >= 0:
        raise InputError(
            "tokens with more entropy are ranked first no less often, so no threshold separates them",
            hint="give more right answers, or a threshold of your own: --model adadec:hf:PATH@BITS",
        )
    chance = 1 / (1 + np.exp(-(intercept + slope * bits[held])))
    grid = np.arange(1, 100) / 100
    accuracies = [float(((chance >= point) == first[held]).mean()) for point in grid]
    best = int(np.argmax(accuracies))
    point = float(grid[best])
    # No entropy is below 0: there a threshold of 0 decides alike.
    threshold = max(0.0, (math.log(point / (1 - point)) - intercept) / slope)
    return Learned(float(threshold), point, len(bits), int((~first).sum()), accuracies[best])


def positions(checkpoint: Checkpoint, traces: Iterable[Trace]) -> tuple[Floats, Bools]:
    """Bits, and whether the token of the text is ranked first, of each token of right first steps (n,).

    Raises `InputError` if no sequential trace has a right first step and its problem.
    """
    import torch

    bits: list[Floats] = []
    first: list[Bools] = []
    for trace in traces:
        if trace.shape != "sequential" or not trace.steps[0].is_correct or trace.problem is None:
            continue
        ask = (trace.prompts or checkpoint.prompts).ask.replace("{problem}", checkpoint.read(trace.problem))
        prompt = checkpoint.conversation((Message("user", ask),), continue_final=False)
        ids = [*prompt, *checkpoint.ids(trace.steps[0].text, special=False), checkpoint.end][: checkpoint.positions]
        with torch.no_grad():
            logits = checkpoint.network(torch.tensor([ids], device=checkpoint.network.device)).logits[0]
        logprobs = torch.log_softmax(logits[len(prompt) - 1 : -1].double(), dim=-1).cpu().numpy()
        bits.append(token_entropy(logprobs, tail="full"))
        first.append(logprobs.argmax(axis=1) == np.array(ids[len(prompt) :]))
    if not bits:
        raise InputError("no trace has a right first step", hint="collect graded traces in the sequential shape")
    return np.concatenate(bits), np.concatenate(first)


def learned_file(folder: Path) -> Path:
    """The file with the learned threshold of a checkpoint."""
    return folder / "adadec.json"


def open_look_ahead(path: Path, threshold: float | None, options: Options) -> AdaDecBackend:
    """AdaDec on a checkpoint in Hugging Face form; without `threshold`, with the learned one."""
    from justenough.backends.transformers import Checkpoint, Loading

    if threshold is None:
        value = load_json(learned_file(path), hint=_HINT)
        threshold = read_as(value, Learned, where=str(learned_file(path)), hint=_HINT).threshold
    loading = Loading(options.dtype, options.device)
    checkpoint = Checkpoint(
        path, prompts=options.prompts, thought=options.thought, threads=options.threads, loading=loading
    )
    return AdaDecBackend(checkpoint, threshold=threshold, concurrency=options.concurrency or 8)
