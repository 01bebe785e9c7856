"""AdaDec on a checkpoint in Hugging Face form: its look-ahead, and its threshold from traces."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from justenough.backends.adadec import AdaDecBackend
from justenough.backends.look_ahead import learn, learned_file, positions
from justenough.backends.protocol import Backend, Message, Request
from justenough.backends.registry import open_backend
from justenough.backends.transformers import Checkpoint
from justenough.errors import InputError
from justenough.signal.signal import Signal
from justenough.toy.adadec import embedded_adadec
from justenough.trace import Step, Token, Trace
from tests.conftest import CHECKPOINT


def tokens(backend: Backend, problem: str, *, temperature: float = 0.0) -> list[Token]:
    request = Request(
        messages=(Message("user", f"{problem}\nOne step."),),
        max_tokens=60,
        temperature=temperature,
        top_k=20,
        seed=0,
        key=(problem, 1),
    )

    async def run() -> list[Token]:
        try:
            return [item async for item in backend.stream(request) if isinstance(item, Token)]
        finally:
            await backend.close()

    return asyncio.run(run())


def test_it_looks_ahead_as_on_the_embedded_form() -> None:
    mine = open_backend(f"adadec:hf:{CHECKPOINT}@0.05", concurrency=2)
    theirs = embedded_adadec(threshold=0.05, concurrency=2)
    left, right = tokens(mine, "47*36"), tokens(theirs, "47*36")
    assert isinstance(mine, AdaDecBackend)
    assert mine.pauses == theirs.pauses > 0
    assert [(token.text, token.discarded) for token in left] == [(token.text, token.discarded) for token in right]


def trace(text: str, *, correct: bool = True) -> Trace:
    step = Step(text=text, answer="1692", correct=correct, tokens=1)
    return Trace(id="x", model="m", problem="47*36", signal=Signal(top_k=20, temperature=0.0), steps=(step,))


def test_the_positions_are_the_tokens_of_right_first_steps() -> None:
    checkpoint = Checkpoint(CHECKPOINT, prompts=None, thought=None, threads=1)
    greedy = "".join(token.text for token in tokens(open_backend(f"hf:{CHECKPOINT}"), "47*36"))
    bits, first = positions(checkpoint, [trace(greedy), trace("wrong", correct=False)])
    assert len(bits) == len(checkpoint.ids(greedy, special=False)) + 1  # and the end
    assert first.all()
    _, other = positions(checkpoint, [trace(greedy.replace("7", "8", 1))])
    assert not other.all()
    with pytest.raises(InputError, match="no trace has a right first step"):
        positions(checkpoint, [trace("wrong", correct=False)])


def test_a_text_is_read_after_the_prompt_of_its_trace() -> None:
    checkpoint = Checkpoint(CHECKPOINT, prompts=None, thought=None, threads=1)
    other = replace(checkpoint.prompts, ask=checkpoint.prompts.think)
    assert other.ask != checkpoint.prompts.ask
    (own, _), (theirs, _) = (positions(checkpoint, [replace(trace("1692"), prompts=each)]) for each in (None, other))
    assert not np.allclose(own, theirs)


def test_without_bits_the_learned_threshold_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "embedded"
    shutil.copytree(CHECKPOINT, folder, ignore=shutil.ignore_patterns("*.gguf"))
    with pytest.raises(InputError, match=r"cannot read .*adadec\.json"):
        open_backend(f"adadec:hf:{folder}")
    rng = np.random.default_rng(1)
    bits = rng.exponential(0.8, size=2_000)
    learned = learn(bits, rng.random(2_000) < 1 / (1 + np.exp(6 * (bits - 1.0))))
    learned_file(folder).write_text(json.dumps(asdict(learned)))
    opened = open_backend(f"adadec:hf:{folder}")
    assert isinstance(opened, AdaDecBackend)
    assert opened.threshold == learned.threshold
    learned_file(folder).write_text("[1]")
    with pytest.raises(InputError, match=r"adadec\.json"):
        open_backend(f"adadec:hf:{folder}")


@pytest.mark.parametrize("bits", [[0.0] * 100, [0.0] * 50 + [3.0] * 50], ids=["constant", "reversed"])
def test_an_entropy_that_does_not_fall_where_tokens_are_ranked_first_gives_no_threshold(bits: list[float]) -> None:
    first = np.arange(100) >= 50
    with pytest.raises(InputError, match="no threshold separates them"):
        learn(np.array(bits), first)


def test_a_threshold_is_at_least_zero() -> None:
    bits = np.linspace(0.0, 1.0, 400)
    # At every entropy most tokens are not ranked first, at high ones all.
    first = (np.arange(400) % 20 == 0) & (bits < 0.8)
    assert learn(bits, first).threshold == 0.0
