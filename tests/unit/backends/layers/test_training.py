"""Exits of a foreign checkpoint: their training, their certificate, and their use at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from justenough.backends.layers.ramps import ExitSettings, OffRamps, check_kind, load_ramps
from justenough.backends.layers.training import (
    Training,
    agreement,
    batches,
    exit_layers,
    hidden_states,
    loss_of,
    read_texts,
    train,
)
from justenough.backends.transformers import Checkpoint
from justenough.errors import InputError
from tests.unit.backends.layers.small import foreign, qwen, small


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    foreign(tmp_path)
    return Checkpoint(tmp_path, prompts=None, thought=None, threads=1)


@pytest.mark.parametrize("shared", [False, True])
def test_exits_learn_from_texts_and_the_network_stays(checkpoint: Checkpoint, tmp_path: Path, shared: bool) -> None:
    network = checkpoint.network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    texts = read_texts(tmp_path / "texts.jsonl", checkpoint)
    settings = ExitSettings(layers=exit_layers(5, 2), shared_head=shared)
    how = Training(tokens=8_000, batch_tokens=240, warm_up=2, peak=1e-2, targets="backbone")
    source = batches(texts, batch_tokens=240, seed=0)
    ramps = train(network, OffRamps(network, settings), source, how, lambda seen, loss: None)
    control = list(batches(texts, batch_tokens=240, seed=None))
    ids, mask = control[0]
    states, logits = hidden_states(network, ids)
    both = ramps, OffRamps(network, settings)
    with torch.no_grad():
        mine, new = (float(loss_of(each, states, logits, ids, mask, "backbone")) for each in both)
    assert mine < new - 0.3
    after, begun = agreement(network, ramps, control), agreement(network, OffRamps(network, settings), control)
    assert len(after) == 2
    assert sum(after) > sum(begun)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    ramps.save(tmp_path / "exits")
    assert sorted(path.name for path in (tmp_path / "exits").iterdir()) == ["exits.json", "model.safetensors"]
    loaded = load_ramps(network, tmp_path / "exits")
    assert loaded.settings == settings
    assert torch.allclose(loaded(states[1], 2), ramps(states[1], 2).detach(), atol=0.05)
    # A shared head adds no map to the vocabulary.
    assert any(value.shape[0] == 50 for value in loaded.state_dict().values()) != shared


def test_texts_are_read_in_three_forms_in_the_model_s_own_tokens(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("w1 w2 w3\n\nw4 w5\n")
    assert read_texts(tmp_path / "a.txt", checkpoint) == [[1, 2, 3], [4, 5]]
    talk = [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2 w3"}]
    (tmp_path / "b.jsonl").write_text(f'{{"text": "w7 w8"}}\n{json.dumps({"messages": talk})}\n')
    assert read_texts(tmp_path / "b.jsonl", checkpoint) == [[7, 8], [1, 2, 3]]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.jsonl", "{", "a.jsonl:1: not JSON"),
        ("a.jsonl", '{"text": 1}', "a.jsonl:1: there is no text"),
        ("a.jsonl", '{"messages": [{"role": "user"}]}', "a.jsonl:1: messages"),
        ("a.txt", "w1\nw2", "has 0 texts"),
        ("b.txt", None, "cannot be read"),
    ],
)
def test_texts_that_cannot_be_used_are_refused(
    checkpoint: Checkpoint, tmp_path: Path, name: str, content: str | None, match: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=match):
        read_texts(tmp_path / name, checkpoint)


def test_exits_are_behind_every_nth_layer_but_the_last() -> None:
    assert exit_layers(30, 10) == (10, 20)
    for every in (0, -1, 30):
        with pytest.raises(InputError, match="no exit fits"):
            exit_layers(30, every)


def test_another_architecture_or_a_sliding_window_is_refused() -> None:
    network = qwen()
    check_kind(network, Path("x"))
    network.config.layer_types = ["full_attention", "sliding_attention", "full_attention", "full_attention"]
    with pytest.raises(InputError, match="sliding window"):
        check_kind(network, Path("x"))


def test_exits_of_a_deeper_network_are_refused(tmp_path: Path) -> None:
    OffRamps.like(small()).save(tmp_path)
    with pytest.raises(InputError, match="another checkpoint"):
        load_ramps(qwen(), tmp_path)
