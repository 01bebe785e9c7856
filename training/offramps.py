"""Trains off-ramps for layer exits on the frozen backbone: `python -m training.offramps`.

There is one head behind each layer except the last. It starts as the checkpoint's own norm and embedding, and is
trained on the conversations of pre-training. The backbone is the checkpoint that ships, and does not change. This is
DeeBERT's second stage, arXiv 2004.12993 (CALM trains backbone and heads together). The loss is a weighted mean of the
layers' cross-entropies; later layers have larger weights (CALM, arXiv 2207.07061, equation 6, without the last layer,
which is frozen).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import torch
import transformers
from torch import Tensor
from torch.nn import functional as F

from justenough.backends.layers.network import FILE, OffRamps
from training.data import Recipe
from training.tokenizer import build
from training.train import Schedule, batches

ROOT: Final = Path(__file__).parent.parent
Targets = Literal["labels", "backbone"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the ramps are trained."""

    tokens: int = 1_000_000
    batch_tokens: int = 3_000
    peak: float = 3e-3
    warm_up: int = 50
    targets: Targets = "labels"
    """The target: the data's next tokens (`labels`), or the distribution of the whole network (`backbone`)."""
    seed: int = 0


def hidden_states(network: transformers.LlamaForCausalLM, ids: Tensor) -> tuple[list[Tensor], Tensor]:
    """The states (B, T, d) behind each layer except the last, and the network's own logits (B, T, V)."""
    with torch.no_grad():
        out = network(ids, output_hidden_states=True, use_cache=False)
    return list(out.hidden_states[1:-1]), out.logits


def loss_of(ramps: OffRamps, states: list[Tensor], logits: Tensor, ids: Tensor, mask: Tensor, how: Targets) -> Tensor:
    """The weighted loss over the positions that predict a trained token, shape ()."""
    chosen = mask[:, 1:]
    total = torch.zeros(())
    weights = [layer / sum(range(1, len(states) + 1)) for layer in range(1, len(states) + 1)]
    for layer, (state, weight) in enumerate(zip(states, weights, strict=True), 1):
        predicted = ramps(state[:, :-1][chosen], layer)
        if how == "labels":
            total = total + weight * F.cross_entropy(predicted, ids[:, 1:][chosen])
        else:
            total = total + weight * F.cross_entropy(predicted, logits[:, :-1][chosen].softmax(dim=-1))
    return total


def train(network: transformers.LlamaForCausalLM, training: Training) -> OffRamps:
    """Train the ramps; print the progress every fifty updates."""
    ramps = OffRamps.like(network)
    optimizer = torch.optim.AdamW(ramps.parameters(), lr=training.peak, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = Schedule(batch_tokens=training.batch_tokens, seed=training.seed)
    seen, running, begun = 0, 0.0, time.monotonic()
    for update, (ids, mask) in enumerate(batches(Recipe(), schedule, build())):
        if seen >= training.tokens:
            break
        rate = training.peak * min(1.0, (update + 1) / training.warm_up)
        rate *= 0.5 * (1 + math.cos(math.pi * seen / training.tokens))
        for group in optimizer.param_groups:
            group["lr"] = rate
        states, logits = hidden_states(network, ids)
        loss = loss_of(ramps, states, logits, ids, mask, training.targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        seen += ids.numel()
        running += loss.item()
        if update % 50 == 49:
            print(f"{seen / 1e6:5.2f} M tokens  loss {running / 50:.4f}  {time.monotonic() - begun:5.0f} s", flush=True)
            running = 0.0
    return ramps.eval()


def agreement(network: transformers.LlamaForCausalLM, ramps: OffRamps, *, batch_count: int = 20) -> list[float]:
    """How often each ramp has the same most likely token as the whole network, on conversations of another seed."""
    agreed = torch.zeros(len(ramps.heads))
    count = 0
    for ids, mask in islice(batches(Recipe(), Schedule(batch_tokens=3_000, seed=1_000), build()), batch_count):
        chosen = mask[:, 1:]
        states, logits = hidden_states(network, ids)
        final = logits[:, :-1][chosen].argmax(dim=-1)
        count += len(final)
        for layer, state in enumerate(states, 1):
            with torch.no_grad():
                agreed[layer - 1] += (ramps(state[:, :-1][chosen], layer).argmax(dim=-1) == final).sum()
    return [float(number) / count for number in agreed]


def load(folder: Path) -> transformers.LlamaForCausalLM:
    """The frozen backbone, in single precision."""
    network = transformers.LlamaForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    return network.eval().requires_grad_(False)


def main() -> None:
    """Train the ramps and write them next to the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "embedded", help="folder of the checkpoint")
    parser.add_argument("--out", type=Path, help=f"where to write them (default: {FILE} in that folder)")
    parser.add_argument("--tokens", type=int, default=Training.tokens)
    parser.add_argument("--targets", choices=("labels", "backbone"), default=Training.targets)
    parser.add_argument("--seed", type=int, default=Training.seed)
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    network = load(options.model)
    training = Training(tokens=options.tokens, targets=options.targets, seed=options.seed)
    begun = agreement(network, OffRamps.like(network))
    ramps = train(network, training)
    ramps.save(options.out or options.model / FILE)
    done = agreement(network, ramps)
    print(json.dumps(asdict(training)))
    for layer, (before, after) in enumerate(zip(begun, done, strict=True), 1):
        print(f"layer {layer}: agrees with the whole network on {after:.1%} of tokens (the bare head: {before:.1%})")


if __name__ == "__main__":
    main()
