"""A Llama or Qwen in Hugging Face form that runs layer by layer and has early exits. Needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from justenough.backends.layers.leaving import Floats, Leaving
from justenough.backends.layers.ramps import OffRamps
from justenough.backends.rows import Choice


@dataclass(slots=True)
class Work:
    """What ran for the tokens that were fed one by one, without the prompts."""

    tokens: int = 0
    layers: int = 0
    heads: int = 0


class Exit:
    """The tokens behind a layer that has an exit, as a rule sees them."""

    def __init__(self, ramps: OffRamps, layer: int, states: tuple[Tensor, Tensor], work: Work) -> None:
        """`states` are those before and behind the layer, each (B, d)."""
        self._ramps, self._layer, self._states, self._work = ramps, layer, states, work

    @cached_property
    def _normed(self) -> Tensor:
        return self._ramps.normed(self._states[1], self._layer)

    @cached_property
    def _predicted(self) -> Tensor:
        return self._predict(self._normed)

    def _predict(self, normed: Tensor) -> Tensor:
        self._work.heads += len(normed)
        return torch.log_softmax(self._ramps.logits(normed, self._layer).double(), dim=-1).cpu()

    @property
    def logprobs(self) -> Floats:
        """Natural log-probabilities (B, V)."""
        out: Floats = self._predicted.numpy()
        return out

    @property
    def similarity(self) -> Floats:
        """Cosine of the states, (B,)."""
        before, behind = (state.double() for state in self._states)
        out: Floats = F.cosine_similarity(before, behind, dim=-1).cpu().numpy()
        return out

    @property
    def trust(self) -> Floats:
        """The early classifier's chance, (B,)."""
        out: Floats = self._ramps.trust(self._normed, self._layer).double().sigmoid().cpu().numpy()
        return out

    def of(self, exiting: Tensor) -> Tensor:
        """The log-probabilities of the tokens that exit, with a head for these only where the rule needed none."""
        if "_predicted" in self.__dict__:
            return self._predicted[exiting]
        return self._predict(self._normed[exiting.to(self._normed.device)])


class LayeredNetwork:
    """Runs the modules of a checkpoint layer by layer, for several rows at once, each with its own length.

    A single row that never exits early has exactly the bits of the whole network. With several rows, the shapes of the
    matrices and so the rounding differ.
    """

    def __init__(self, network: Any, ramps: OffRamps | None, *, rows: int) -> None:
        """With `ramps` None, no token can exit early."""
        self.network = network
        self.ramps = ramps
        self.work = Work()
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
        like: Tensor = self.network.lm_head.weight

        def empty() -> Tensor:
            return like.new_zeros(rows, heads, positions, size)

        grown = [(empty(), empty()) for _ in range(self.layers)]
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
        out = self.network(torch.tensor([ids], device=self.network.device), use_cache=True, logits_to_keep=1)
        for (keys, values), layer in zip(self._caches, out.past_key_values.layers, strict=True):
            keys[row, :, : len(ids)] = layer.keys[0]
            values[row, :, : len(ids)] = layer.values[0]
        self._lengths[row] = len(ids)
        return Choice(torch.log_softmax(out.logits[0, -1].double(), dim=-1).cpu(), self.layers)

    @torch.no_grad()
    def step(self, rows: list[int], ids: list[int], leaving: Leaving | None) -> list[Choice]:
        """Feed one generated token to each of some rows; each token exits behind the first layer where it may.

        With `leaving` None, no off-ramp is used.
        """
        body, device = self.network.model, self.network.device
        longest = max(self._lengths[row] for row in rows) + 1
        self._room(longest)
        places = torch.tensor([self._lengths[row] for row in rows], device=device)
        where = torch.tensor(rows, device=device)
        hidden = body.embed_tokens(torch.tensor(ids, device=device).unsqueeze(1))
        turns = body.rotary_emb(hidden, position_ids=places.unsqueeze(1))

        def place(some: Tensor) -> Place:
            return Place(where[some], places[some], (turns[0][some], turns[1][some]))

        choices: list[Choice | None] = [None] * len(rows)
        inside = torch.arange(len(rows), device=device)
        self.work.tokens += len(rows)
        for number in range(1, self.layers + 1):
            before = hidden
            hidden = self.layer(number, hidden, place(inside))
            self.work.layers += len(inside)
            if number == self.layers:
                self.work.heads += len(inside)
                logits = self.network.lm_head(body.norm(hidden))[:, 0]
                exiting = torch.ones(len(inside), dtype=torch.bool)
                logprobs = torch.log_softmax(logits.double(), dim=-1).cpu()
            elif leaving is None or self.ramps is None or number not in self.ramps.settings.layers:
                continue
            else:
                exit_ = Exit(self.ramps, number, (before[:, 0], hidden[:, 0]), self.work)
                exiting = torch.from_numpy(leaving.leaves(exit_))
                if not exiting.any():
                    continue
                logprobs = exit_.of(exiting)
            exiting = exiting.to(device)
            for index, each in zip(inside[exiting].tolist(), logprobs, strict=True):
                choices[index] = Choice(each, number)
            self.propagate(number, hidden[exiting], place(inside[exiting]))
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
        queries = attention.q_proj(normed).view(len(hidden), 1, -1, attention.head_dim)
        queries = getattr(attention, "q_norm", _same)(queries).transpose(1, 2)
        queries, _ = apply_rotary_pos_emb(queries, queries, *place.turns)
        self._write(number, normed, place)
        longest = int(place.positions.max()) + 1
        keys, values = (cache[place.rows, :, :longest] for cache in self._caches[number - 1])
        # A single row needs no mask, and without a mask the bits are those of the whole network.
        mask = (
            (torch.arange(longest, device=hidden.device) <= place.positions[:, None])[:, None, None]
            if len(hidden) > 1
            else None
        )
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
        keys, values = (part(normed).view(shape) for part in (attention.k_proj, attention.v_proj))
        keys, values = getattr(attention, "k_norm", _same)(keys).transpose(1, 2), values.transpose(1, 2)
        keys, _ = apply_rotary_pos_emb(keys, keys, *place.turns)
        for cache, new in zip(self._caches[number - 1], (keys, values), strict=True):
            cache[place.rows, :, place.positions] = new[:, :, 0]

    def propagate(self, behind: int, hidden: Tensor, place: Place) -> None:
        """Use the state where a token exited as its state in all layers above (the state propagation of CALM).

        Later tokens attend to this token in all layers, so it needs keys and values there.
        """
        for number in range(behind + 1, self.layers + 1):
            self._write(number, self.network.model.layers[number - 1].input_layernorm(hidden), place)


def _same(states: Tensor) -> Tensor:
    """In place of a norm that only Qwen3 has."""
    return states


class Place(NamedTuple):
    """The positions of some rows."""

    rows: Tensor
    positions: Tensor
    turns: tuple[Tensor, Tensor]
    """Cosines and sines of the rotary positions, each (B, 1, head size)."""
