"""Rows of a network that are decoded together: small networks of several families, with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from justenough.backends.rows import CachedRows, Choice, NetworkDecoder

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
WINDOW = 4
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "full attention": ("Qwen3", {}),
    "a window in every layer": ("Mistral", {"sliding_window": WINDOW}),
    "a window in some layers": (
        "Gemma3Text",
        {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "a state of another kind": ("Lfm2", {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}),
}
PROMPTS = [[3, 4, 5], [6, 7, 8, 9, 10, 11, 12, 13, 14], [15]]


@pytest.fixture(params=FAMILIES)
def network(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    name, options = FAMILIES[request.param]
    config = getattr(transformers, f"{name}Config")(**SIZES | options)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def whole(network: Any, ids: list[int]) -> torch.Tensor:
    """The prediction after some ids, without a cache."""
    with torch.no_grad():
        logits = network(torch.tensor([ids]), use_cache=False).logits[0, -1]
    return torch.log_softmax(logits.double(), dim=-1)


def test_rows_of_different_lengths_predict_what_the_whole_sequence_predicts(network: Any) -> None:
    rows = CachedRows(network, rows=4)
    texts = [list(prompt) for prompt in PROMPTS]
    places = [2, 0, 3]
    choices = [rows.read(row, text) for row, text in zip(places, texts, strict=True)]
    for length in range(8):
        for text, choice in zip(texts, choices, strict=True):
            torch.testing.assert_close(choice.logprobs, whole(network, text), atol=1e-4, rtol=0)
            text.append((7 * length + len(text)) % 50)
        choices = rows.feed(places, [text[-1] for text in texts])
    # A row goes on alone, and a row that is free again takes another prompt.
    texts[0].append(1)
    alone = rows.feed([2], [1])[0]
    torch.testing.assert_close(alone.logprobs, rows.read(0, [*texts[0]]).logprobs, atol=1e-4, rtol=0)


def test_a_row_may_grow_beyond_the_first_room() -> None:
    torch.manual_seed(0)
    network = transformers.AutoModelForCausalLM.from_config(transformers.Qwen3Config(**SIZES)).eval()
    rows = CachedRows(network, rows=2)
    long = [number % 50 for number in range(255)]
    rows.read(0, long)
    rows.read(1, [1, 2])
    for token_id in (5, 6, 7):
        long.append(token_id)
        choice = rows.feed([0, 1], [token_id, 3])[0]
    torch.testing.assert_close(choice.logprobs, whole(network, long), atol=1e-4, rtol=0)


def test_every_end_of_a_sequence_is_reported_as_the_first_one() -> None:
    def choice(best: int) -> Choice:
        logits = torch.zeros(6, dtype=torch.float64)
        logits[best] = 9.0
        return Choice(torch.log_softmax(logits, dim=-1), layers=best)

    decoder = NetworkDecoder(
        lambda row, ids: choice(ids[-1] + 1),
        lambda rows, ids: [choice(each + 1) for each in ids],
        rows=2,
        vocabulary=6,
        positions=9,
        ends=(0, 4),
    )
    slot = decoder.admit([1, 2], uniforms=np.zeros(5), temperature=0.0, top_k=2)
    assert slot is not None
    assert [(sample.token_id, sample.layers) for _, sample in decoder.step()] == [(3, 3)]
    ((_, last),) = decoder.step()
    assert (last.token_id, len(last.top_logprobs)) == (0, 2)
    assert slot.cached == [1, 2, 3]
    decoder.release(slot)
    assert decoder.step() == []


def test_a_row_that_is_free_again_reads_its_whole_prompt() -> None:
    read: list[list[int]] = []
    uniform = Choice(torch.zeros(6, dtype=torch.float64))

    def note(row: int, ids: list[int]) -> Choice:
        read.append(list(ids))
        return uniform

    decoder = NetworkDecoder(note, lambda rows, ids: [uniform] * len(rows), rows=1, vocabulary=6, positions=9)
    for prompt in ([1, 2, 3], [1, 2, 3, 4]):
        slot = decoder.admit(prompt, uniforms=np.zeros(5), temperature=0.0, top_k=2)
        assert slot is not None
        decoder.step()
        decoder.step()
        decoder.release(slot)
    assert read == [[1, 2, 3], [1, 2, 3, 4]]
