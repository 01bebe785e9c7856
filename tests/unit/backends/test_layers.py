"""Layer exits: a token that never leaves is the whole network's, one that leaves early is the off-ramp's."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from justenough.backends.layers.backend import LayerExitBackend, open_calm, open_deebert
from justenough.backends.layers.certificate import certified_margin, read_certificates, write_certificates
from justenough.backends.layers.leaving import NEVER, Calm, DeeBert, Leaving
from justenough.backends.layers.network import FILE, LayeredNetwork, OffRamps
from justenough.backends.protocol import Finish, Message, Request
from justenough.backends.registry import Options
from justenough.backends.transformers import TransformersBackend
from justenough.errors import InputError
from justenough.grading import Exact, Problem
from justenough.runner import Runner, RunSettings
from justenough.stats.learn_then_test import Certificate
from justenough.trace import Token
from tests.conftest import CHECKPOINT

PROBLEMS = ("47*36", "5821%7", "41+93-28")


def request(problem: str, *, temperature: float = 0.8, max_tokens: int = 80) -> Request:
    return Request(
        messages=(Message("user", f"{problem}\nOne step."),),
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=20,
        seed=0,
        key=(problem, 1),
    )


async def alone(backend: TransformersBackend, problems: Sequence[str] = PROBLEMS) -> list[list[Token | Finish]]:
    return [[item async for item in backend.stream(request(problem))] for problem in problems]


async def together(backend: TransformersBackend, problems: Sequence[str] = PROBLEMS) -> list[list[Token | Finish]]:
    async def one(problem: str) -> list[Token | Finish]:
        return [item async for item in backend.stream(request(problem))]

    return list(await asyncio.gather(*(one(problem) for problem in problems)))


def bits(items: list[Token | Finish]) -> list[tuple[str, Sequence[float] | None]]:
    return [(item.text, item.top_logprobs) for item in items if isinstance(item, Token)]


@pytest.mark.parametrize("never", [None, NEVER, DeeBert(0.0)])
def test_what_never_leaves_is_the_whole_network_bit_for_bit(never: Leaving | None) -> None:
    whole = asyncio.run(alone(TransformersBackend(CHECKPOINT, threads=1)))
    mine = asyncio.run(alone(LayerExitBackend(CHECKPOINT, never, threads=1)))
    assert [bits(items) for items in mine] == [bits(items) for items in whole]
    assert {item.layers for items in mine for item in items if isinstance(item, Token)} == {4}


@pytest.mark.parametrize("leaving", [NEVER, Calm(0.999)])
def test_rows_side_by_side_say_what_they_say_alone(leaving: Leaving) -> None:
    single = asyncio.run(alone(LayerExitBackend(CHECKPOINT, leaving, threads=1)))
    crowd = asyncio.run(together(LayerExitBackend(CHECKPOINT, leaving, threads=1)))
    for one, other in zip(single, crowd, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            if isinstance(mine, Token) and isinstance(theirs, Token):
                assert (mine.text, mine.layers) == (theirs.text, theirs.layers)
                assert mine.top_logprobs == pytest.approx(theirs.top_logprobs, abs=1e-3)


def small() -> LlamaForCausalLM:
    """Grouped heads and another depth than the shipped model's; random, so that every layer matters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=600,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


class At:
    """Leaves behind a given layer."""

    name = "at"

    def __init__(self, layer: int) -> None:
        self.layer = layer
        self.asked = 0

    def leaves(self, logprobs: NDArray[np.float64]) -> NDArray[np.bool_]:
        self.asked += 1
        here = self.asked == self.layer
        self.asked = 0 if here else self.asked
        return np.full(len(logprobs), here)


def by_hand(network: LlamaForCausalLM, ids: Sequence[int], left: Sequence[int | None]) -> torch.Tensor:
    """The states that enter each layer at the last position, and the one behind the last, (layers + 1, d).

    Written the slow way: each position leaves behind its layer, or never, and the state in which it left is what later
    positions find of it in the layers above.
    """
    found: list[torch.Tensor] = []
    for place in range(len(ids)):
        found.append(_states(network, ids[: place + 1], found, left[place]))
    return found[-1]


def _states(
    network: LlamaForCausalLM, ids: Sequence[int], before: list[torch.Tensor], left: int | None
) -> torch.Tensor:
    body = network.model
    state = body.embed_tokens(torch.tensor([[ids[-1]]]))
    found = [state[0, 0]]
    turns = body.rotary_emb(state, position_ids=torch.arange(len(ids)).unsqueeze(0))
    for index, layer in enumerate(body.layers):
        if left is not None and index >= left:
            found.append(found[-1])
            continue
        column = torch.stack([*(states[index] for states in before), found[-1]]).unsqueeze(0)
        found.append(layer(column, position_embeddings=turns)[0, -1])
    return torch.stack(found)


@pytest.mark.parametrize("layer", [1, 3, 4])
def test_the_state_in_which_a_token_left_stands_for_the_layers_above(layer: int) -> None:
    network = small()
    early, ramps = At(layer), OffRamps.like(network)
    layered = LayeredNetwork(network, ramps, rows=3)
    prompts = [[3, 9, 27, 31], [5, 6]]
    for row, prompt in enumerate(prompts):
        layered.read(row, prompt)
    said = [[11, 12, 13, 20], [14, 15, 16, 21]]
    left: list[list[int | None]] = [[None] * len(prompt) for prompt in prompts]
    for place in range(4):
        # The last one stays to the end, and attends to what was handed on.
        stays = place == 3
        choices = layered.step([0, 1], [said[0][place], said[1][place]], NEVER if stays else early)
        for choice, prompt, words, how in zip(choices, prompts, said, left, strict=True):
            assert choice.layers == (5 if stays else layer)
            how.append(None if stays else layer)
            with torch.no_grad():
                states = by_hand(network, [*prompt, *words[: place + 1]], how)
                logits = network.lm_head(network.model.norm(states[-1])) if stays else ramps(states[layer], layer)
            assert torch.allclose(choice.logprobs, torch.log_softmax(logits.double(), dim=-1), atol=1e-4)


def test_a_row_grows_beyond_its_first_room() -> None:
    network = small()
    layered = LayeredNetwork(network, OffRamps.like(network), rows=1)
    ids = torch.randint(0, 50, (300,), generator=torch.Generator().manual_seed(1)).tolist()
    layered.read(0, ids[:250])
    for token in ids[250:]:
        choice = layered.step([0], [token], NEVER)[0]
    with torch.no_grad():
        whole = torch.log_softmax(network(torch.tensor([ids])).logits[0, -1].double(), dim=-1)
    assert torch.allclose(choice.logprobs, whole, atol=1e-4)


def test_rules_leave_where_they_say() -> None:
    rows = np.log(np.array([[0.98, 0.01, 0.01], [0.5, 0.4, 0.1], [1 / 3, 1 / 3, 1 / 3]]))
    assert Calm(0.9).leaves(rows).tolist() == [True, False, False]
    assert Calm(0.05).leaves(rows).tolist() == [True, True, False]
    assert Calm(0.0).leaves(rows).all()
    assert not NEVER.leaves(rows).any()
    assert DeeBert(1.0).leaves(rows).tolist() == [True, False, False]
    assert DeeBert(1.5).leaves(rows).tolist() == [True, True, False]
    assert not DeeBert(0.0).leaves(rows).any()
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError):
            Calm(wrong)
        with pytest.raises(InputError):
            DeeBert(wrong)


def test_layers_are_counted_into_the_step() -> None:
    async def run() -> tuple[int, int]:
        backend = LayerExitBackend(CHECKPOINT, Calm(0.9), threads=1)
        runner = Runner(backend, RunSettings(max_steps=1), grader=Exact())
        step = (await runner.run(Problem(id="x", problem="47*36", target="1692"))).trace.steps[0]
        return int(str(step.extra["layers"])), step.tokens

    layers, tokens = asyncio.run(run())
    assert tokens < layers < 4 * tokens


def test_a_closed_stream_gives_its_row_back() -> None:
    async def run() -> int:
        backend = LayerExitBackend(CHECKPOINT, Calm(0.9), concurrency=1, threads=1)
        for _ in range(3):
            stream = backend.stream(request("47*36"))
            await anext(aiter(stream))
            await stream.aclose()  # type: ignore[attr-defined]
        return len((await alone(backend, ["47*36"]))[0])

    assert asyncio.run(asyncio.wait_for(run(), 20)) > 10


def test_specs_name_the_folder_and_the_threshold() -> None:
    assert open_calm(f"{CHECKPOINT}@0.75", Options()).model == "justenough-embedded/calm@0.75"
    assert open_deebert(f"{CHECKPOINT}@0.5", Options()).model == "justenough-embedded/deebert@0.5"
    assert open_calm(str(CHECKPOINT), Options()).leaving == Calm(certified_margin(CHECKPOINT))
    for wrong in ("", "@0.5", f"{CHECKPOINT}@much"):
        with pytest.raises(InputError):
            open_calm(wrong, Options())
    with pytest.raises(InputError, match="bits"):
        open_deebert(str(CHECKPOINT), Options())


def test_a_checkpoint_without_ramps_or_with_others_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "embedded"
    shutil.copytree(CHECKPOINT, folder, ignore=shutil.ignore_patterns("*.gguf"))
    (folder / FILE).unlink()
    with pytest.raises(InputError, match="offramps"):
        LayerExitBackend(folder, NEVER)
    OffRamps.like(small()).save(folder / FILE)
    with pytest.raises(InputError, match="another checkpoint"):
        LayerExitBackend(folder, NEVER)


def test_certificates_round_trip_and_what_is_missing_is_named(tmp_path: Path) -> None:
    made = Certificate(setting=0.9, level=0.05, confidence=0.95, n=600, risk=0.02)
    write_certificates(tmp_path, [made], about="a test")
    assert read_certificates(tmp_path) == (made,)
    assert certified_margin(tmp_path) == 0.9
    with pytest.raises(InputError, match=r"0\.05"):
        certified_margin(tmp_path, level=0.01)
    (tmp_path / "calm.json").write_text(json.dumps({"certificates": [{"margin": 1}]}))
    with pytest.raises(InputError, match="no certificates"):
        read_certificates(tmp_path)
    (tmp_path / "calm.json").unlink()
    with pytest.raises(InputError, match=r"training\.calm"):
        read_certificates(tmp_path)
