"""A Llama in Hugging Face form that runs layer by layer, and its off-ramps for early exits. Needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from justenough.backends.layers.leaving import Leaving
from justenough.backends.rows import Choice
from justenough.errors import InputError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

FILE = "offramps/model.safetensors"
"""The weights of the off-ramps, in a folder of their own: vLLM loads all weights beside those of the checkpoint."""


class OffRamps(nn.Module):
    """One head behind each layer except the last: RMSNorm and a linear map to the vocabulary.

    DeeBERT has a pooler and a classifier there, and CALM shares the head of the decoder. Here each layer has its own
    norm and head, initialised with those of the checkpoint.
    """

    def __init__(self, *, layers: int, hidden: int, vocabulary: int, eps: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(hidden, eps=eps) for _ in range(layers - 1))
        self.heads = nn.ModuleList(nn.Linear(hidden, vocabulary, bias=False) for _ in range(layers - 1))

    def forward(self, hidden: Tensor, layer: int) -> Tensor:
        """Logits (…, V) of the hidden states (…, d) behind a layer; layers count from 1."""
        logits: Tensor = self.heads[layer - 1](self.norms[layer - 1](hidden))
        return logits

    @classmethod
    def like(cls, network: LlamaForCausalLM) -> OffRamps:
        """Off-ramps that are copies of the last norm and the head of a network."""
        config = network.config
        ramps = cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            vocabulary=config.vocab_size,
            eps=config.rms_norm_eps,
        )
        with torch.no_grad():
            for parameter in ramps.norms.parameters():
                parameter.copy_(network.model.norm.weight)
            for parameter in ramps.heads.parameters():
                parameter.copy_(network.lm_head.weight)
        return ramps

    def save(self, path: Path) -> None:
        """Write the weights in half precision."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.to(torch.float16).contiguous() for name, value in self.state_dict().items()}, path)


def load_ramps(network: LlamaForCausalLM, folder: Path) -> OffRamps:
    """The off-ramps of a checkpoint; raises `InputError` if there are none or they do not fit."""
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"{folder} has no {FILE}", hint="train them: python -m training.offramps --model FOLDER")
    ramps = OffRamps.like(network)
    try:
        ramps.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    except RuntimeError as error:
        raise InputError(f"{path} belongs to another checkpoint", hint="train off-ramps for this checkpoint") from error
    return ramps.eval().requires_grad_(False)


class LayeredNetwork:
    """Runs the modules of a checkpoint layer by layer, for several rows at once, each with its own length.

    A single row that never exits early has exactly the bits of the whole network. With several rows, the shapes of the
    matrices and so the rounding differ.
    """

    def __init__(self, network: LlamaForCausalLM, ramps: OffRamps, *, rows: int) -> None:
        self.network = network
        self.ramps = ramps
        config = network.config
        self.layers = int(config.num_hidden_layers)
        self._lengths = [0] * rows
        attention = network.model.layers[0].self_attn
        self._shape = (rows, int(config.num_key_value_heads), int(attention.head_dim))
        self._caches: list[tuple[Tensor, Tensor]] = []
        self._grow(256)

    def _grow(self, positions: int) -> None:
        """Make room for this many positions in every row; keys and values are (rows, heads, positions, head size)."""
        rows, heads, size = self._shape
        grown = [(torch.zeros(rows, heads, positions, size), torch.zeros(rows, heads, positions, size))]
        grown += [(torch.zeros_like(grown[0][0]), torch.zeros_like(grown[0][0])) for _ in range(self.layers - 1)]
        for old, new in zip(self._caches, grown, strict=False):
            for before, after in zip(old, new, strict=True):
                after[:, :, : before.shape[2]] = before
        self._caches = grown

    def _room(self, positions: int) -> None:
        have = self._caches[0][0].shape[2]
        if positions > have:
            self._grow(max(positions, 2 * have))

    @torch.no_grad()
    def read(self, row: int, ids: list[int]) -> Choice:
        """Replace the content of a row with a prompt; a prompt runs through all layers."""
        self._room(len(ids))
        out = self.network(torch.tensor([ids]), use_cache=True, logits_to_keep=1)
        for (keys, values), layer in zip(self._caches, out.past_key_values.layers, strict=True):
            keys[row, :, : len(ids)] = layer.keys[0]
            values[row, :, : len(ids)] = layer.values[0]
        self._lengths[row] = len(ids)
        return Choice(torch.log_softmax(out.logits[0, -1].double(), dim=-1), self.layers)

    @torch.no_grad()
    def step(self, rows: list[int], ids: list[int], leaving: Leaving | None) -> list[Choice]:
        """Feed one generated token to each of some rows; each token exits behind the first layer where it may.

        With `leaving` None, no off-ramp is used.
        """
        body = self.network.model
        places = torch.tensor([self._lengths[row] for row in rows])
        self._room(int(places.max()) + 1)
        where = torch.tensor(rows)
        hidden = body.embed_tokens(torch.tensor(ids).unsqueeze(1))
        turns = body.rotary_emb(hidden, position_ids=places.unsqueeze(1))

        def place(some: Tensor) -> Place:
            return Place(where[some], places[some], (turns[0][some], turns[1][some]))

        choices: list[Choice | None] = [None] * len(rows)
        inside = torch.arange(len(rows))
        for number in range(1, self.layers + 1):
            hidden = self.layer(number, hidden, place(inside))
            if number == self.layers:
                logits = self.network.lm_head(body.norm(hidden))[:, 0]
            elif leaving is not None:
                logits = self.ramps(hidden[:, 0], number)
            else:
                continue
            logprobs = torch.log_softmax(logits.double(), dim=-1)
            if number == self.layers or leaving is None:
                exiting = torch.ones(len(inside), dtype=torch.bool)
            else:
                exiting = torch.from_numpy(leaving.leaves(logprobs.numpy()))
            for index in exiting.nonzero()[:, 0].tolist():
                choices[int(inside[index])] = Choice(logprobs[index], number)
            if exiting.any():
                exits = inside[exiting]
                self.propagate(number, hidden[exiting], place(exits))
                inside, hidden = inside[~exiting], hidden[~exiting]
            if not len(inside):
                break
        for row in rows:
            self._lengths[row] += 1
        return [choice for choice in choices if choice is not None]

    def layer(self, number: int, hidden: Tensor, place: Place) -> Tensor:
        """Run one layer on states (B, 1, d), as the layer of the checkpoint computes it."""
        layer = self.network.model.layers[number - 1]
        attention = layer.self_attn
        normed = layer.input_layernorm(hidden)
        queries = attention.q_proj(normed).view(len(hidden), 1, -1, attention.head_dim).transpose(1, 2)
        queries, _ = apply_rotary_pos_emb(queries, queries, *place.turns)
        self._write(number, normed, place)
        longest = int(place.positions.max()) + 1
        keys, values = (cache[place.rows, :, :longest] for cache in self._caches[number - 1])
        # A single row needs no mask, and without a mask the bits are those of the whole network.
        mask = (torch.arange(longest) <= place.positions[:, None])[:, None, None] if len(hidden) > 1 else None
        attended = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=attention.scaling, enable_gqa=keys.shape[1] < queries.shape[1]
        )
        hidden = hidden + attention.o_proj(attended.transpose(1, 2).reshape(len(hidden), 1, -1))
        out: Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return out

    def _write(self, number: int, normed: Tensor, place: Place) -> None:
        """Write keys and values of a layer from the normed states that enter it."""
        attention = self.network.model.layers[number - 1].self_attn
        shape = (len(normed), 1, -1, attention.head_dim)
        keys, values = (part(normed).view(shape).transpose(1, 2) for part in (attention.k_proj, attention.v_proj))
        keys, _ = apply_rotary_pos_emb(keys, keys, *place.turns)
        for cache, new in zip(self._caches[number - 1], (keys, values), strict=True):
            cache[place.rows, :, place.positions] = new[:, :, 0]

    def propagate(self, behind: int, hidden: Tensor, place: Place) -> None:
        """Use the state where a token exited as its state in all layers above (the state propagation of CALM).

        Later tokens attend to this token in all layers, so it needs keys and values there.
        """
        for number in range(behind + 1, self.layers + 1):
            self._write(number, self.network.model.layers[number - 1].input_layernorm(hidden), place)


class Place(NamedTuple):
    """The positions of some rows."""

    rows: Tensor
    positions: Tensor
    turns: tuple[Tensor, Tensor]
    """Cosines and sines of the rotary positions, each (B, 1, head size)."""
