"""Learns AdaDec's threshold for the embedded models: `python -m training.adadec [--splits N]`.

The method is that of the publication (arXiv 2506.08980): see `justenough.backends.look_ahead`.

The reference texts are right derivations (`training.derivations`) of the calibration split: a first step and its
checks, in the sequential shape. With `--splits`, the threshold is learned again with other held-out positions, and only
its spread is printed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from justenough.backends.batched import Slot
from justenough.backends.look_ahead import learn
from justenough.signal.entropy import token_entropy
from justenough.toy.adadec import learned_file
from justenough.toy.engine import Engine
from justenough.toy.families import Question, questions
from justenough.toy.notation import MODELS
from justenough.toy.tokens import packaged
from training.data import AGAIN, MAX_STEPS, ONE_STEP
from training.derivations import check, quick
from training.tokenizer import ASSISTANT, CLOSE, END, THINK, USER, build

PACKAGED: Final = Path(__file__).parent.parent / "src/justenough/toy/models"
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def reference(question: Question) -> list[tuple[str, bool]]:
    """A correct conversation in pieces, and for each piece whether the model generates it."""
    pieces: list[tuple[str, bool]] = []
    for step in range(1, MAX_STEPS + 1):
        prompt = f"{question.text}{ONE_STEP}" if step == 1 else AGAIN
        thought = quick(question) if step == 1 else check(question, step)
        pieces.append((f"{USER}{prompt}{END}{ASSISTANT}", False))
        pieces.append((f"{THINK}{thought.text}\n\n{CLOSE}Answer: {thought.result}{END}", True))
    return pieces


class _Read(NamedTuple):
    """A reference text that the model is reading."""

    ids: list[int]
    generated: list[bool]
    logits: list[Floats]


def positions(engine: Engine, problems: Sequence[Question]) -> tuple[Floats, Bools]:
    """Entropy in bits, and whether the reference token is ranked first, of each position (n,)."""
    tokenizer = build()
    bits: list[Floats] = []
    first: list[Bools] = []
    reading: dict[Slot, _Read] = {}
    waiting = [_encoded(question, tokenizer) for question in problems]
    while waiting or reading:
        while waiting and len(reading) < len(engine.slots):
            read = waiting.pop()
            slot = engine.admit(read.ids, uniforms=np.zeros(1), temperature=0.0, top_k=1)
            if slot is None:
                raise RuntimeError("the engine has fewer free rows than its width")
            # The engine would reuse a cached prefix of an earlier text and leave out its positions. So clear the cache.
            slot.waiting, slot.cached = list(read.ids), []
            reading[slot] = read
        engine.step()
        for slot, read in list(reading.items()):
            read.logits.append(engine.logits(slot).astype(np.float64))
            if len(read.logits) < len(read.ids):
                continue
            rows = np.stack(read.logits[:-1])
            logprobs = rows - np.logaddexp.reduce(rows, axis=1, keepdims=True)
            mine = np.array(read.generated[1:])
            bits.append(token_entropy(logprobs[mine], tail="full"))
            first.append((rows.argmax(axis=1) == np.array(read.ids[1:]))[mine])
            engine.release(slot)
            del reading[slot]
    return np.concatenate(bits), np.concatenate(first)


def _encoded(question: Question, tokenizer: Tokenizer) -> _Read:
    ids: list[int] = []
    generated: list[bool] = []
    for text, mine in reference(question):
        piece = tokenizer.encode(text).ids
        ids += piece
        generated += [mine] * len(piece)
    return _Read(ids, generated, [])


def spread(bits: Floats, first: Bools, *, splits: int) -> str:
    """The thresholds and the chosen probabilities over splits, in words."""
    each = [learn(bits, first, seed=seed) for seed in range(splits)]
    low, middle, high = np.quantile([one.threshold for one in each], (0.05, 0.5, 0.95))
    edge = sum(one.probability <= 0.01 for one in each)
    return (
        f"{middle:.4f} bits [{low:.4f}, {high:.4f}] (median, 5th and 95th percentile of {splits} splits);"
        f" the probability is at the edge of the grid in {edge}"
    )


def main() -> None:
    """Learn and write the threshold of each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--splits", type=int, default=0, metavar="N", help="print the spread over N splits")
    options = parser.parse_args()
    problems = list(islice(questions("calibration"), options.problems))
    for name in options.models:
        bits, first = positions(Engine(packaged(f"{name}.onnx")), problems)
        if options.splits:
            print(f"{name}: {spread(bits, first, splits=options.splits)}")
            continue
        learned = learn(bits, first)
        value = {**asdict(learned), "threshold": round(learned.threshold, 4), "problems": options.problems}
        (PACKAGED / learned_file(name)).write_text(json.dumps(value, indent=2) + "\n")
        print(
            f"{name}: {learned.threshold:.4f} bits; {learned.misranked} of {learned.positions} tokens not ranked first;"
            f" {learned.accuracy:.1%} of the held-out positions classified correctly"
        )


if __name__ == "__main__":
    main()
