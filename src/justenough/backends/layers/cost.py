"""The work of early exits.

Work is counted in multiply-adds of matrices for one token, without attention's own sums. A layer has d × (2 h + 2 k)
for queries, output, keys and values, where h and k are the widths of all query and all key-value heads, and 3 d × i for
the feed-forward network of inner width i. A head has d × V. A token that leaves early still needs keys and values in
the layers above (2 d × k each). A head that all layers share costs the same work as separate heads, but no memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """Multiply-adds of the parts of a network for one token."""

    layers: int
    layer: int
    head: int
    handed_on: int
    """Keys and values of one layer for a token that left before it."""

    @classmethod
    def of(cls, config: Mapping[str, int]) -> Cost:
        """The cost by a `config.json` of a Llama- or Qwen-like network."""
        d, heads = config["hidden_size"], config["num_attention_heads"]
        size = config.get("head_dim") or d // heads
        keys = size * (config.get("num_key_value_heads") or heads)
        layer = d * (2 * size * heads + 2 * keys) + 3 * d * config["intermediate_size"]
        return cls(config["num_hidden_layers"], layer, d * config["vocab_size"], 2 * d * keys)

    @property
    def whole(self) -> int:
        """The whole network with its one head."""
        return self.layers * self.layer + self.head

    def work(self, *, tokens: int, layers: int, heads: int) -> int:
        """The work of some tokens that ran this many layers and heads in all."""
        return layers * self.layer + heads * self.head + (tokens * self.layers - layers) * self.handed_on

    def saved(self, tokens: int, layers: int, whole_tokens: int, *, ramps: bool) -> float:
        """Saved share of the whole network's work. Each layer evaluates one head; the last uses the model's own."""
        heads = layers if ramps else tokens
        return 1 - self.work(tokens=tokens, layers=layers, heads=heads) / (whole_tokens * self.whole)

    def halfway(self, heads: int) -> float:
        """The change of the work if each token leaves behind half of the layers, after this many heads."""
        return self.work(tokens=1, layers=self.layers // 2, heads=heads) / self.whole - 1
