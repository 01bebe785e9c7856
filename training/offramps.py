"""Trains exits of the embedded model: `python -m training.offramps`.

There is one head behind each layer except the last. It starts as the checkpoint's own norm and embedding, and is
trained on the conversations of pre-training. The backbone is the checkpoint that ships, and does not change. The method
is that of `justenough exits train`, which trains exits of any other model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from torch import Tensor

from justenough.backends.layers.certificate import tokenizer_digest
from justenough.backends.layers.ramps import FOLDER, OffRamps
from justenough.backends.layers.training import Training, agreement, train
from training.data import Recipe
from training.tokenizer import belongs_to, build
from training.train import Schedule, batches

ROOT: Final = Path(__file__).parent.parent


def conversations(training: Training) -> Iterator[tuple[Tensor, Tensor]]:
    """The conversations of pre-training, in the tokenizer of the embedded models."""
    return batches(Recipe(), Schedule(batch_tokens=training.batch_tokens, seed=training.seed), build())


def load(folder: Path) -> Any:
    """The frozen backbone, in single precision."""
    network = transformers.LlamaForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    return network.eval().requires_grad_(False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the exits and write them next to the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "embedded", help="folder of the checkpoint")
    parser.add_argument("--out", type=Path, help=f"folder for them (default: {FOLDER} in that of the checkpoint)")
    parser.add_argument("--tokens", type=int, default=Training.tokens)
    parser.add_argument("--targets", choices=("labels", "backbone"), default=Training.targets)
    parser.add_argument("--seed", type=int, default=Training.seed)
    options = parser.parse_args(arguments)
    if not belongs_to(options.model):
        parser.error(f"{options.model} has a tokenizer of its own: use justenough exits train --texts FILE")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    training = Training(tokens=options.tokens, targets=options.targets, seed=options.seed)
    network = load(options.model)
    control = list(islice(conversations(Training(seed=1_000)), 20))
    begun, clock = agreement(network, OffRamps.like(network), control), time.monotonic()

    def report(seen: int, loss: float) -> None:
        print(f"{seen / 1e6:5.2f} M tokens  loss {loss:.4f}  {time.monotonic() - clock:5.0f} s", flush=True)

    ramps = train(network, OffRamps.like(network), conversations(training), training, report)
    done = agreement(network, ramps, control)
    digest = tokenizer_digest(options.model)
    ramps.settings = replace(ramps.settings, tokenizer=digest, tokens=options.tokens, agreement=done)
    ramps.save(options.out or options.model / FOLDER)
    print(json.dumps(asdict(training)))
    for layer, (before, after) in enumerate(zip(begun, done, strict=True), 1):
        print(f"layer {layer}: agrees with the whole network on {after:.1%} of tokens (the bare head: {before:.1%})")


if __name__ == "__main__":
    main()
