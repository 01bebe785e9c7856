"""AdaDec's threshold for the embedded models: `python -m training.adadec`.

As in the publication (arXiv 2506.08980): the reference texts are fed to the model token by token; each position gives
the entropy of the prediction and whether the reference token is ranked first. Four fifths of the positions, the rarer
kind as often as the commoner, fit a logistic regression; on the last fifth the probability is chosen that tells the two
apart most often; the entropy at which the regression gives that probability is the threshold.

The reference texts are right derivations (`training.derivations`) of the calibration split: a first step and its
checks, in the sequential shape.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from justenough.backends.adadec import learned_file
from justenough.signal.entropy import token_entropy
from justenough.stats.logistic import logistic
from justenough.toy.backend import MODELS
from justenough.toy.engine import Engine, Slot
from justenough.toy.families import Question, questions
from justenough.toy.tokens import packaged
from training.data import AGAIN, MAX_STEPS, ONE_STEP
from training.derivations import check, quick
from training.tokenizer import ASSISTANT, CLOSE, END, THINK, USER, build

PACKAGED: Final = Path(__file__).parent.parent / "src/justenough/toy/models"
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Learned(NamedTuple):
    """A threshold and how it came about."""

    threshold: float
    """Bits."""
    probability: float
    """At which the regression says "ranked first"."""
    positions: int
    misranked: int
    accuracy: float
    """Share of held-back positions that the threshold tells right."""


def reference(question: Question) -> list[tuple[str, bool]]:
    """A right conversation in pieces, each with whether the model is to say it."""
    pieces: list[tuple[str, bool]] = []
    for step in range(1, MAX_STEPS + 1):
        asked = f"{question.text}{ONE_STEP}" if step == 1 else AGAIN
        thought = quick(question) if step == 1 else check(question, step)
        pieces.append((f"{USER}{asked}{END}{ASSISTANT}", False))
        pieces.append((f"{THINK}{thought.text}\n\n{CLOSE}Answer: {thought.result}{END}", True))
    return pieces


class _Read(NamedTuple):
    """A reference text under way."""

    ids: list[int]
    said: list[bool]
    logits: list[Floats]


def positions(engine: Engine, problems: Sequence[Question]) -> tuple[Floats, Bools]:
    """Entropy in bits, and whether the reference token is ranked first, of each position (n,)."""
    tokenizer = build()
    bits: list[Floats] = []
    first: list[Bools] = []
    reading: dict[Slot, _Read] = {}
    waiting = [_encoded(question, tokenizer) for question in problems]
    while waiting or reading:
        while waiting and len(reading) < engine.width:
            read = waiting.pop()
            slot = engine.admit(read.ids, uniforms=np.zeros(1), temperature=0.0, top_k=1)
            if slot is None:
                raise RuntimeError("the engine has fewer rows than it says")
            # What a row still holds of an earlier text that begins alike is not fed again: its positions are missing.
            slot.waiting, slot.cached = list(read.ids), []
            reading[slot] = read
        engine.step()
        for slot, read in list(reading.items()):
            read.logits.append(engine.logits(slot).astype(np.float64))
            if len(read.logits) < len(read.ids):
                continue
            rows = np.stack(read.logits[:-1])
            logprobs = rows - np.logaddexp.reduce(rows, axis=1, keepdims=True)
            mine = np.array(read.said[1:])
            bits.append(token_entropy(logprobs[mine], tail="full"))
            first.append((rows.argmax(axis=1) == np.array(read.ids[1:]))[mine])
            engine.release(slot)
            del reading[slot]
    return np.concatenate(bits), np.concatenate(first)


def _encoded(question: Question, tokenizer: Tokenizer) -> _Read:
    ids: list[int] = []
    said: list[bool] = []
    for text, mine in reference(question):
        piece = tokenizer.encode(text).ids
        ids += piece
        said += [mine] * len(piece)
    return _Read(ids, said, [])


def learn(bits: Floats, first: Bools, *, seed: int = 0) -> Learned:
    """The threshold from positions (n,); raises `ValueError` where all, or none, are ranked first."""
    order = np.random.default_rng(seed).permutation(len(bits))
    held, fitted = order[: len(bits) // 5], order[len(bits) // 5 :]
    right, wrong = fitted[first[fitted]], fitted[~first[fitted]]
    size = min(len(right), len(wrong))
    if not size:
        raise ValueError("the regression needs positions of both kinds")
    balanced = np.concatenate([right[:size], wrong[:size]])
    # The slope is shrunk by w²/2, the intercept is free.
    intercept, slope = logistic(bits[balanced][:, None], first[balanced], penalty=(0.0, 1.0)).tolist()
    chance = 1 / (1 + np.exp(-(intercept + slope * bits[held])))
    grid = np.arange(1, 100) / 100
    accuracies = [float(((chance >= point) == first[held]).mean()) for point in grid]
    best = int(np.argmax(accuracies))
    point = float(grid[best])
    threshold = (np.log(point / (1 - point)) - intercept) / slope
    return Learned(float(threshold), point, len(bits), int((~first).sum()), accuracies[best])


def main() -> None:
    """Learn and write the threshold of each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--problems", type=int, default=300)
    options = parser.parse_args()
    problems = list(islice(questions("calibration"), options.problems))
    for name in options.models:
        made = learn(*positions(Engine(packaged(f"{name}.onnx")), problems))
        value = {**made._asdict(), "threshold": round(made.threshold, 4), "problems": options.problems}
        (PACKAGED / learned_file(name)).write_text(json.dumps(value, indent=2) + "\n")
        print(
            f"{name}: {made.threshold:.4f} bits; {made.misranked} of {made.positions} tokens not ranked first;"
            f" {made.accuracy:.1%} of the held-back told apart"
        )


if __name__ == "__main__":
    main()
