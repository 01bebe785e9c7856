"""Trains off-ramps for layer exits on the frozen backbone: `python -m training.offramps`.

There is one head behind each layer except the last. It starts as the checkpoint's own norm and embedding, and is
trained on the conversations of pre-training. The backbone is the checkpoint that ships, and does not change. This is
DeeBERT's second stage, arXiv 2004.12993 (CALM trains backbone and heads together). The loss is a weighted mean of the
layers' cross-entropies; later layers have larger weights (CALM, arXiv 2207.07061, equation 6, without the last layer,
which is frozen).

Another Llama (`--model FOLDER`) needs texts of its own: `--texts FILE`, JSON Lines with `text`. The model's own
tokenizer encodes them. The last tenth of them is not trained and measures the agreement.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final, Literal

import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from justenough.backends.layers.network import FILE, OffRamps
from training.data import Example, Recipe
from training.tokenizer import belongs_to, build
from training.train import Schedule, batches, padded

ROOT: Final = Path(__file__).parent.parent
Targets = Literal["labels", "backbone"]
Batches = Iterable[tuple[Tensor, Tensor]]
"""Token ids and trained positions, each (B, T)."""


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


def conversations(training: Training) -> Iterator[tuple[Tensor, Tensor]]:
    """The conversations of pre-training, in the tokenizer of the embedded models."""
    return batches(Recipe(), Schedule(batch_tokens=training.batch_tokens, seed=training.seed), build())


def read_texts(path: Path, checkpoint: Path) -> list[Example]:
    """The texts of a file in the tokenizer of a checkpoint; each token is trained. Long texts are cut."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    positions = int(json.loads((checkpoint / "config.json").read_text())["max_position_embeddings"])
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    encoded = [tokenizer.encode(text).ids[:positions] for text in texts]
    return [Example(ids, [True] * len(ids)) for ids in encoded if len(ids) > 1]


def repeated(examples: Sequence[Example], training: Training) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of the texts without end, in a new order each time."""
    random = Random(training.seed)
    while True:
        batch: list[Example] = []
        for example in random.sample(examples, len(examples)):
            width = max(len(each.ids) for each in (*batch, example))
            if batch and (len(batch) + 1) * width > training.batch_tokens:
                yield padded(batch)
                batch = []
            batch.append(example)
        yield padded(batch)


def train(network: transformers.LlamaForCausalLM, source: Batches, training: Training) -> OffRamps:
    """Train the ramps; print the progress every fifty updates."""
    ramps = OffRamps.like(network)
    optimizer = torch.optim.AdamW(ramps.parameters(), lr=training.peak, betas=(0.9, 0.98), weight_decay=0.0)
    seen, running, begun = 0, 0.0, time.monotonic()
    for update, (ids, mask) in enumerate(source):
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


def agreement(network: transformers.LlamaForCausalLM, ramps: OffRamps, source: Batches) -> list[float]:
    """How often each ramp has the same most likely token as the whole network, on texts that are not trained."""
    agreed = torch.zeros(len(ramps.heads))
    count = 0
    for ids, mask in source:
        chosen = mask[:, 1:]
        states, logits = hidden_states(network, ids)
        final = logits[:, :-1][chosen].argmax(dim=-1)
        count += len(final)
        for layer, state in enumerate(states, 1):
            with torch.no_grad():
                agreed[layer - 1] += (ramps(state[:, :-1][chosen], layer).argmax(dim=-1) == final).sum()
    return [float(number) / count for number in agreed]


def load(folder: Path) -> transformers.LlamaForCausalLM:
    """The frozen backbone, in single precision; raises `ValueError` for another architecture."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    if kind != "llama":
        raise ValueError(f"{folder} is a {kind}; early exits support only Llama")
    network = transformers.LlamaForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    return network.eval().requires_grad_(False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the ramps and write them next to the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "embedded", help="folder of the checkpoint")
    parser.add_argument("--texts", type=Path, help="JSON Lines with `text`; required for a model of another tokenizer")
    parser.add_argument("--out", type=Path, help=f"where to write them (default: {FILE} in that folder)")
    parser.add_argument("--tokens", type=int, default=Training.tokens)
    parser.add_argument("--targets", choices=("labels", "backbone"), default=Training.targets)
    parser.add_argument("--seed", type=int, default=Training.seed)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    training = Training(tokens=options.tokens, targets=options.targets, seed=options.seed)
    source, held = conversations(training), conversations(Training(seed=1_000))
    if options.texts is not None:
        examples = read_texts(options.texts, options.model)
        cut = len(examples) - max(1, len(examples) // 10)
        if not cut:
            parser.error(f"{options.texts} has {len(examples)} texts of at least two tokens; give at least two")
        source, held = repeated(examples[:cut], training), repeated(examples[cut:], training)
    elif not belongs_to(options.model):
        parser.error(f"{options.model} has a tokenizer of its own: give texts of its task by --texts FILE")
    network = load(options.model)
    control = list(islice(held, 20))
    begun = agreement(network, OffRamps.like(network), control)
    ramps = train(network, source, training)
    ramps.save(options.out or options.model / FILE)
    done = agreement(network, ramps, control)
    print(json.dumps(asdict(training)))
    for layer, (before, after) in enumerate(zip(begun, done, strict=True), 1):
        print(f"layer {layer}: agrees with the whole network on {after:.1%} of tokens (the bare head: {before:.1%})")


if __name__ == "__main__":
    main()
