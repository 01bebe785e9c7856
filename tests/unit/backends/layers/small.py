"""Small networks for the tests, and a whole checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)


def small() -> LlamaForCausalLM:
    """Random weights, so that every layer matters; grouped heads, and not the depth of the shipped model."""
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


def qwen(*, third: bool = False) -> Qwen2ForCausalLM | Qwen3ForCausalLM:
    """A small Qwen2, with biases, or Qwen3, with norms of queries and keys."""
    torch.manual_seed(1)
    kinds = (Qwen3Config, Qwen3ForCausalLM) if third else (Qwen2Config, Qwen2ForCausalLM)
    config = kinds[0](
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=600,
        initializer_range=0.3,
    )
    return kinds[1](config).eval()


def foreign(folder: Path) -> None:
    """Write a checkpoint with a tokenizer of words, a chat template, and texts of these words in `texts.jsonl`."""
    small().save_pretrained(folder)
    words = {f"w{number}": number for number in range(49)} | {"</s>": 49}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    fast.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    fast.save_pretrained(folder)
    lines = [json.dumps({"text": " ".join(f"w{(start + step) % 48}" for step in range(12))}) for start in range(40)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
