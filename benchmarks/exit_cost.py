"""What heads behind layers cost in models of several sizes: `python -m benchmarks.exit_cost [CONFIG.json ...]`.

Work is counted in multiply-adds of matrices for one token, without attention's own sums. A layer has d × (2 h + 2 k)
for queries, output, keys and values, where h and k are the widths of all query and all key-value heads, and 3 d × i for
the feed-forward network of inner width i. A head has d × V. A token that leaves early still needs keys and values in
the layers above (2 d × k each). A head that all layers share costs the same work as separate heads, but no memory.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
SIZES: Final[Mapping[str, tuple[int, int, int, int, int, int]]] = {
    "SmolLM2-135M": (576, 1536, 30, 9, 3, 49152),
    "Llama-3.2-1B": (2048, 8192, 16, 32, 8, 128256),
    "Llama-2-7B": (4096, 11008, 32, 32, 32, 32000),
    "Qwen2.5-7B": (3584, 18944, 28, 28, 4, 152064),
    "Llama-3-8B": (4096, 14336, 32, 32, 8, 128256),
    "Llama-3-70B": (8192, 28672, 80, 64, 8, 128256),
}
NAMES: Final = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    "vocab_size",
)
"""What the numbers of `SIZES` are; they come from the models' `config.json`."""


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


def table(costs: Mapping[str, Cost]) -> str:
    """One row for each model, in Markdown."""
    lines = [
        "| model | layers | a head, in layers | halfway, a head behind each layer | every 4th layer | one head, halfway"
        " | separate heads, share of the model |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, cost in costs.items():
        half = cost.layers // 2
        changes = " | ".join(f"{cost.halfway(heads):+.0%}" for heads in (half, max(1, half // 4), 1))
        share = (cost.layers - 1) * cost.head / cost.whole
        lines.append(f"| {name} | {cost.layers} | {cost.head / cost.layer:.2f} | {changes} | {share:.0%} |")
    return "\n".join(lines)


def main(paths: list[str]) -> None:
    """Print the table for the known models, or for the given configurations."""
    files = [Path(path) for path in paths] or [ROOT / "models/embedded/config.json"]
    costs = {path.parent.name or str(path): Cost.of(json.loads(path.read_text())) for path in files}
    if not paths:
        costs |= {name: Cost.of(dict(zip(NAMES, sizes, strict=True))) for name, sizes in SIZES.items()}
    print(table(costs))


if __name__ == "__main__":
    main(sys.argv[1:])
