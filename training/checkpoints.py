"""Reads checkpoints and maps the names of their weights: `model.pt` of a run, and the Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import Tensor

from training.model import Llama, Shape
from training.tokenizer import build

Weights = dict[str, NDArray[np.float16]]


def load(checkpoint: Path) -> Llama:
    """The model in a run's `model.pt`, or in a Hugging Face folder with weights in half precision."""
    model = Llama(Shape(vocab_size=build().get_vocab_size()))
    if checkpoint.is_dir():
        model.load_state_dict(_state(load_file(checkpoint / "model.safetensors"), model.state_dict()))
    else:
        model.load_state_dict(torch.load(checkpoint, weights_only=True))
    return model


def hugging_face_weights(model: Llama) -> Weights:
    """The weights under the names of `LlamaForCausalLM`, (out, in), half precision."""
    weights: Weights = {}
    for name, tensor in model.state_dict().items():
        names = _theirs(name)
        value = tensor.detach().to(torch.float16).numpy()
        for theirs, piece in zip(names, np.split(value, len(names)), strict=True):
            weights[theirs] = np.ascontiguousarray(piece)
    return weights


def _state(weights: Weights, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under our names, single precision."""
    return {name: torch.from_numpy(np.concatenate([weights[it] for it in _theirs(name)])).float() for name in state}


def _theirs(name: str) -> list[str]:
    """The names in `LlamaForCausalLM` of the weights that we keep in one matrix, in the order of its rows."""
    prefix, _, leaf = name.partition(".qkv.")
    if leaf:
        return [f"model.{prefix}.self_attn.{part}_proj.{leaf}" for part in "qkv"]
    prefix, _, leaf = name.partition(".gate_up.")
    if leaf:
        return [f"model.{prefix}.mlp.{part}_proj.{leaf}" for part in ("gate", "up")]
    return ["model." + name.replace(".o_proj.", ".self_attn.o_proj.").replace(".down_proj.", ".mlp.down_proj.")]
