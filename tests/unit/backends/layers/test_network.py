"""The network that runs layer by layer, against a slow reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from justenough.backends.layers.leaving import Behind, Calm, Saturation
from justenough.backends.layers.network import Exit, LayeredNetwork, Work
from justenough.backends.layers.ramps import FOLDER, WEIGHTS, ExitSettings, OffRamps, load_ramps
from justenough.errors import InputError
from tests.unit.backends.layers.small import qwen, small


class At:
    """A rule that exits behind a given layer."""

    name = "at"

    def __init__(self, layer: int) -> None:
        self.layer = layer
        self.calls = 0

    def leaves(self, behind: Behind) -> NDArray[np.bool_]:
        self.calls += 1
        here = self.calls == self.layer
        self.calls = 0 if here else self.calls
        return np.full(len(behind.logprobs), here)


class Similar:
    """A rule that reads only the states; every token exits."""

    name = "similar"

    def leaves(self, behind: Behind) -> NDArray[np.bool_]:
        return behind.similarity >= -2


def by_hand(network: LlamaForCausalLM, ids: Sequence[int], left: Sequence[int | None]) -> torch.Tensor:
    """The states that enter each layer at the last position, and the one behind the last, (layers + 1, d).

    A slow reference: each position exits behind its layer or never, and later positions see the state of the exit in
    all layers above.
    """
    values: list[torch.Tensor] = []
    for place in range(len(ids)):
        values.append(_states(network, ids[: place + 1], values, left[place]))
    return values[-1]


def _states(
    network: LlamaForCausalLM, ids: Sequence[int], before: list[torch.Tensor], left: int | None
) -> torch.Tensor:
    body = network.model
    state = body.embed_tokens(torch.tensor([[ids[-1]]]))
    values = [state[0, 0]]
    turns = body.rotary_emb(state, position_ids=torch.arange(len(ids)).unsqueeze(0))
    for index, layer in enumerate(body.layers):
        if left is not None and index >= left:
            values.append(values[-1])
            continue
        column = torch.stack([*(states[index] for states in before), values[-1]]).unsqueeze(0)
        values.append(layer(column, position_embeddings=turns)[0, -1])
    return torch.stack(values)


@pytest.mark.parametrize("layer", [1, 3, 4])
def test_later_tokens_attend_to_the_state_where_a_token_exited(layer: int) -> None:
    network = small()
    early, ramps = At(layer), OffRamps.like(network)
    layered = LayeredNetwork(network, ramps, rows=3)
    prompts = [[3, 9, 27, 31], [5, 6]]
    for row, prompt in enumerate(prompts):
        layered.read(row, prompt)
    texts = [[11, 12, 13, 20], [14, 15, 16, 21]]
    left: list[list[int | None]] = [[None] * len(prompt) for prompt in prompts]
    for place in range(4):
        # The last token does not exit early, and attends to the propagated states.
        stays = place == 3
        choices = layered.step([0, 1], [texts[0][place], texts[1][place]], Calm(2.0) if stays else early)
        for choice, prompt, words, how in zip(choices, prompts, texts, left, strict=True):
            assert choice.layers == (5 if stays else layer)
            how.append(None if stays else layer)
            with torch.no_grad():
                states = by_hand(network, [*prompt, *words[: place + 1]], how)
                logits = network.lm_head(network.model.norm(states[-1])) if stays else ramps(states[layer], layer)
            assert torch.allclose(choice.logprobs, torch.log_softmax(logits.double(), dim=-1), atol=1e-4)


def test_a_row_can_grow_beyond_its_first_size() -> None:
    network = small()
    layered = LayeredNetwork(network, OffRamps.like(network), rows=1)
    ids = torch.randint(0, 50, (300,), generator=torch.Generator().manual_seed(1)).tolist()
    layered.read(0, ids[:250])
    for token in ids[250:]:
        choice = layered.step([0], [token], Calm(2.0))[0]
    with torch.no_grad():
        whole = torch.log_softmax(network(torch.tensor([ids])).logits[0, -1].double(), dim=-1)
    assert torch.allclose(choice.logprobs, whole, atol=1e-4)


def test_new_off_ramps_are_copies_of_the_head() -> None:
    network = small()
    ramps = OffRamps.like(network)
    hidden = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network.lm_head(network.model.norm(hidden))
        for layer in range(1, 5):
            assert torch.allclose(ramps(hidden, layer), expected, atol=1e-5)


def test_off_ramps_are_saved_in_half_precision_and_loaded_without_gradients(tmp_path: Path) -> None:
    network = small()
    ramps = OffRamps.like(network)
    ramps.save(tmp_path / FOLDER)
    loaded = load_ramps(network, tmp_path / FOLDER)
    assert (tmp_path / FOLDER / WEIGHTS).stat().st_size < 2 * sum(value.numel() for value in ramps.parameters()) + 4096
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    for mine, theirs in zip(loaded.parameters(), ramps.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=2e-3)


def test_missing_off_ramps_name_the_file_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        load_ramps(small(), tmp_path)


@pytest.mark.parametrize("third", [False, True])
def test_a_qwen_without_exits_has_the_bits_of_the_whole_network(third: bool) -> None:
    network = qwen(third=third)
    layered = LayeredNetwork(network, OffRamps.like(network), rows=1)
    ids = [3, 9, 27, 31, 11, 12]
    layered.read(0, ids[:4])
    choices = [layered.step([0], [token], Calm(2.0))[0] for token in ids[4:]]
    with torch.no_grad():
        whole = torch.log_softmax(network(torch.tensor([ids])).logits[0, -1].double(), dim=-1)
    assert torch.allclose(choices[-1].logprobs, whole, atol=1e-5)


def test_a_head_runs_only_for_tokens_that_leave_if_the_rule_reads_states() -> None:
    network = small()
    ramps = OffRamps(network, ExitSettings(layers=(2,), classifier=True))
    for rule, heads, layers in ((Similar(), 2, 4), (Saturation(2.0), 2, 10), (Calm(2.0), 4, 10)):
        layered = LayeredNetwork(network, ramps, rows=2)
        for row in (0, 1):
            layered.read(row, [1, 2, 3])
        layered.step([0, 1], [4, 5], rule)
        assert (layered.work.tokens, layered.work.heads, layered.work.layers) == (2, heads, layers)


def test_the_measures_are_those_of_the_states_and_of_the_classifier() -> None:
    network = small()
    ramps = OffRamps(network, ExitSettings(layers=(2,))).requires_grad_(False)
    ramps.get_parameter("trusts.0.weight").fill_(0.1)
    before, behind = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(3))
    at = Exit(ramps, 2, (before, behind), Work())
    assert at.similarity == pytest.approx(
        [float(a @ b / a.norm() / b.norm()) for a, b in zip(before, behind, strict=True)], abs=1e-5
    )
    with torch.no_grad():
        normed = network.model.norm(behind)
        assert at.trust == pytest.approx((0.1 * normed.sum(dim=-1)).sigmoid().numpy(), abs=1e-5)
        whole = torch.log_softmax(network.lm_head(normed).double(), dim=-1)
    exiting = torch.tensor([True, False, True])
    assert torch.allclose(at.of(exiting), whole[exiting], atol=1e-5)
    assert at.logprobs == pytest.approx(whole.numpy(), abs=1e-5)
