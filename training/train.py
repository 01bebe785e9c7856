"""Pre-trains the embedded model: `python -m training.train --out training/runs/embedded`."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from training.checkpoints import load
from training.data import Example, Recipe, conversation, train_question
from training.model import Llama, Shape
from training.tokenizer import build


@dataclass(frozen=True)
class Schedule:
    """Settings of the optimisation: number of tokens, tokens in a batch, learning rates, seed."""

    tokens: int = 18_000_000
    batch_tokens: int = 1_500
    peak: float = 3e-3
    warm_up: int = 100
    weight_decay: float = 0.05
    clip: float = 1.0
    seed: int = 0


def batches(recipe: Recipe, schedule: Schedule, tokenizer: Tokenizer) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches (B, T) of ids and loss masks with about `batch_tokens` tokens each, from examples of similar length."""
    random = Random(schedule.seed)
    while True:
        pool = [conversation(train_question(random), recipe, random, tokenizer) for _ in range(512)]
        pool.sort(key=lambda example: len(example.ids))
        ready: list[list[Example]] = []
        for example in pool:
            if not ready or (len(ready[-1]) + 1) * len(example.ids) > schedule.batch_tokens:
                ready.append([])
            ready[-1].append(example)
        random.shuffle(ready)
        yield from (padded(examples) for examples in ready)


def padded(examples: list[Example]) -> tuple[Tensor, Tensor]:
    """Ids and trained positions of some examples, each (B, T)."""
    width = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask = torch.zeros(len(examples), width, dtype=torch.bool)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        mask[row, : len(example.ids)] = torch.tensor(example.trained)
    return ids, mask


def loss_of(model: Llama, ids: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy over the trained targets; the logits of other positions are not computed."""
    targets = mask[:, 1:]
    logits = F.linear(model.hidden(ids[:, :-1])[targets], model.embed_tokens.weight)
    return F.cross_entropy(logits, ids[:, 1:][targets])


def train(model: Llama, recipe: Recipe, schedule: Schedule, *, log: Path) -> None:
    """Train `model` in place; print one line of progress every 200 updates, and append it to `log` as JSON."""
    decayed = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    plain = [parameter for parameter in model.parameters() if parameter.dim() != 2]
    groups = [{"params": decayed, "weight_decay": schedule.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=schedule.peak, betas=(0.9, 0.98), fused=True)
    seen, running, begun = 0, 0.0, time.monotonic()
    for update, (ids, mask) in enumerate(batches(recipe, schedule, build())):
        if seen >= schedule.tokens:
            break
        rate = schedule.peak * min(1.0, (update + 1) / schedule.warm_up)
        rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, seen / schedule.tokens)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(model, ids, mask)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
        optimizer.step()
        seen += ids.numel()
        running += loss.item()
        if update % 200 == 199:
            line = {"update": update + 1, "tokens": seen, "loss": running / 200, "seconds": time.monotonic() - begun}
            running = 0.0
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(
                f"{seen / 1e6:6.2f} M tokens  loss {line['loss']:.4f}  {seen / line['seconds']:,.0f} tokens/s",
                flush=True,
            )
        if update % 2000 == 1999:
            torch.save(model.state_dict(), log.with_suffix(".partial.pt"))


def main() -> None:
    """Train from scratch, or continue from `--start`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for model.pt and the log")
    parser.add_argument("--start", type=Path, help="model.pt or Hugging Face folder to start from")
    parser.add_argument("--tokens", type=int, default=Schedule.tokens)
    parser.add_argument("--peak", type=float, default=Schedule.peak)
    parser.add_argument("--batch-tokens", type=int, default=Schedule.batch_tokens)
    parser.add_argument("--seed", type=int, default=Schedule.seed)
    parser.add_argument("--forgetful", type=float, default=0.0, help="share of first steps that forget carries")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    model = load(options.start) if options.start else Llama(Shape(vocab_size=build().get_vocab_size()))
    options.out.mkdir(parents=True, exist_ok=True)
    schedule = Schedule(tokens=options.tokens, batch_tokens=options.batch_tokens, peak=options.peak, seed=options.seed)
    recipe = Recipe(forgetful=options.forgetful)
    settings = {"schedule": asdict(schedule), "recipe": asdict(recipe), "shape": asdict(model.shape)}
    (options.out / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
    log = options.out / "log.jsonl"
    log.unlink(missing_ok=True)
    train(model, recipe, schedule, log=log)
    torch.save(model.state_dict(), options.out / "model.pt")


if __name__ == "__main__":
    main()
