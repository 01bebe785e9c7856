"""What heads behind layers cost in models of several sizes: `python -m benchmarks.exit_cost [CONFIG.json ...]`.

`justenough.backends.layers.cost` says how work is counted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from justenough.backends.layers.cost import Cost

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
