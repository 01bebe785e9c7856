"""A small Llama for the tests of the network."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM


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
