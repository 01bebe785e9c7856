"""A LoRA learns from the right answers, and merging it changes nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.real.lora import BATCH, EPOCHS, Tokens, adapt, chosen, loss, merge, tokens, train
from justenough.trace import Trace
from tests.builders import step, trace

EXAMPLES = [
    Tokens([1, 2, 3, 4, 5], [6, 7, 8], 1.0),
    Tokens([1, 2, 3, 9], [10], 0.5),
    Tokens([1, 2, 3, 4, 11, 12, 13], [14, 15, 16, 17, 18], -0.25),
]


@pytest.fixture
def network() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
    ).eval()


def samples() -> list[Trace]:
    grades = {"easy": (True, True, True, True), "mixed": (True, False, False, True), "hard": (False,) * 4}
    return [
        replace(trace(step(0.5, correct=grade, text=f"{problem} {copy}"), id=f"{problem}-{copy}"), problem=problem)
        for problem, each in grades.items()
        for copy, grade in enumerate(each)
    ]


def test_the_loss_is_that_of_the_answers_read_one_by_one(network: Any) -> None:
    terms = []
    for each in EXAMPLES:
        logprobs = network(torch.tensor([each.prompt + each.answer])).logits[0].log_softmax(-1)
        terms += [
            -each.weight * logprobs[len(each.prompt) - 1 + at, token].item() for at, token in enumerate(each.answer)
        ]
    assert loss(network, EXAMPLES).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_a_merged_adapter_computes_the_same(network: Any) -> None:
    ids = torch.tensor([[1, 2, 3, 4]])
    before = network(ids).logits
    for parameter in adapt(network):
        torch.nn.init.normal_(parameter, std=0.3)
    adapted = network(ids).logits
    assert not torch.allclose(adapted, before, atol=1e-2)
    merge(network)
    assert torch.allclose(network(ids).logits, adapted, atol=1e-4)
    assert not any("up" in name for name, _ in network.named_parameters() if name.endswith(".up"))


def test_training_makes_the_answers_likelier_and_leaves_the_embedding(network: Any) -> None:
    positive = [each for each in EXAMPLES if each.weight > 0]
    embedding = network.model.embed_tokens.weight.clone()
    before = loss(network, positive).item()
    losses = train(network, positive * 16, seed=0, rate=0.03)
    assert len(losses) == 32 * EPOCHS / BATCH
    assert loss(network, positive).item() < before
    assert torch.equal(network.model.embed_tokens.weight, embedding)


def test_the_control_has_as_many_answers_of_each_problem() -> None:
    right, control = chosen(samples(), "right", seed=1), chosen(samples(), "any", seed=1)
    assert Counter(one.problem for one in right) == {"easy": 2, "mixed": 2}
    assert [one.problem for one in control] == [one.problem for one in right]
    assert {one.text for one in right if one.problem == "mixed"} == {"mixed 0", "mixed 3"}


def test_the_control_also_draws_wrong_answers() -> None:
    drawn = {one.text for seed in range(20) for one in chosen(samples(), "any", seed=seed)}
    assert {"mixed 1", "mixed 2"} <= drawn


def test_an_advantage_is_the_reward_less_the_mean_of_the_problem() -> None:
    weights = {one.text: one.weight for one in chosen(samples(), "advantage", seed=0)}
    assert weights == {"mixed 0": 0.5, "mixed 1": -0.5, "mixed 2": -0.5, "mixed 3": 0.5}


class Words:
    """A tokenizer with one token for each character."""

    eos_token_id = 0

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [ord(letter) for letter in text]}

    def apply_chat_template(self, turns: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool) -> str:
        assert (tokenize, add_generation_prompt) == (False, True)
        return f"<{turns[0]['content']}>"


def test_an_answer_follows_the_prompt_of_its_collection_and_ends_where_the_model_ended_it() -> None:
    (one,) = tokens(Words(), [chosen([samples()[0]], "right", seed=0)[0]._replace(ended=True)])
    assert "".join(map(chr, one.prompt)) == "<easy Answer in one short sentence.>"
    assert one.answer == [*map(ord, "easy 0"), 0]
