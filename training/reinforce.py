"""Reinforcement on verifiable first steps: `python -m training.reinforce --start RUN/model.pt --out RUN`.

This is group-relative policy optimisation (GRPO, arXiv 2402.03300) in its one-step form. For each training problem of
a batch, several first steps are sampled from the present weights. A right answer has reward 1. The rewards are centred
and scaled within the problem's group, and one gradient step follows. With one step for each batch, the ratio of new to
old policy is 1, so there is nothing to clip. Each update also replays pre-training conversations with masked first
steps: this keeps the checks, and only the rewards teach the first step. `--reward 0` leaves only the replay, as a
control.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from justenough.grading import Exact
from justenough.toy.families import Question
from training.checkpoints import load
from training.data import Recipe, assert_trainable, train_question
from training.decoding import Completion, complete, engine_of, first_prompt, turn_text
from training.model import Llama
from training.tokenizer import build, end_of_sequence
from training.train import Schedule, batches, loss_of

WIDTH: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Reinforcement:
    """The recipe of a run."""

    updates: int = 120
    problems: int = 48  # training problems in each update
    samples: int = 8  # first steps that are sampled for each problem
    temperature: float = 1.0
    limit: int = 64  # tokens of a sampled step
    rate: float = 1e-3  # peak; falls linearly to zero
    reward: float = 1.0  # weight of the policy gradient
    replay: float = 1.0  # weight of the cross-entropy of pre-training conversations
    replay_first: bool = False  # whether their (right) first steps are trained too
    replay_tokens: int = 3_000  # tokens of replay in each update, if its weight is not 0
    clip: float = 1.0  # norm of the gradient
    seed: int = 0


class Rollout(NamedTuple):
    """Sampled first steps of one update: prompts and completions by row, rewards (problems, samples)."""

    prompts: list[list[int]]
    completions: list[Completion]
    rewards: NDArray[np.float64]


def advantages(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rewards (problems, samples) centred and scaled within each problem; 0 if all its rewards are equal."""
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    deviation = rewards.std(axis=1, keepdims=True)
    scaled: NDArray[np.float64] = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
    return scaled


def rollout(
    model: Llama, problems: Sequence[Question], recipe: Reinforcement, *, update: int, tokenizer: Tokenizer
) -> Rollout:
    """Sample first steps of training problems; raises `ValueError` for a held-out one."""
    for problem in problems:
        assert_trainable(problem)
    grader = Exact()
    prompts = [tokenizer.encode(first_prompt(problem.text)).ids for problem in problems for _ in range(recipe.samples)]
    completions = complete(
        engine_of(model, width=min(WIDTH, len(prompts))),
        prompts,
        keys=[(f"{problem.text}#{sample}", update) for problem in problems for sample in range(recipe.samples)],
        end=end_of_sequence(tokenizer),
        temperature=recipe.temperature,
        seed=recipe.seed,
        limit=recipe.limit,
    )
    rewards = np.zeros((len(problems), recipe.samples))
    for row, completion in enumerate(completions):
        problem = problems[row // recipe.samples]
        answer = grader.extract(turn_text(completion, tokenizer)) if completion.ended else None
        rewards[row // recipe.samples, row % recipe.samples] = answer == str(problem.answer)
    return Rollout(prompts, completions, rewards)


def policy_loss(model: Llama, rolled: Rollout) -> Tensor | None:
    """Minus the advantage-weighted mean log-probability of the sampled tokens; None if all advantages are 0."""
    weights = advantages(rolled.rewards).ravel()
    rows = [row for row in range(len(weights)) if weights[row] != 0]
    if not rows:
        return None
    total = sum(len(completion.ids) for completion in rolled.completions)
    # Batches of similar length need little padding.
    rows.sort(key=lambda row: len(rolled.prompts[row]) + len(rolled.completions[row].ids))
    loss = torch.zeros(())
    for start in range(0, len(rows), WIDTH):
        chunk = rows[start : start + WIDTH]
        sequences = [rolled.prompts[row] + rolled.completions[row].ids for row in chunk]
        ids = torch.zeros(len(chunk), max(map(len, sequences)), dtype=torch.long)
        weight = torch.zeros(ids.shape)
        for index, (row, sequence) in enumerate(zip(chunk, sequences, strict=True)):
            ids[index, : len(sequence)] = torch.tensor(sequence)
            weight[index, len(rolled.prompts[row]) : len(sequence)] = float(weights[row])
        logits = model(ids[:, :-1])
        surprise = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        loss = loss + (surprise * weight[:, 1:].flatten()).sum() / total
    return loss


def reinforce(model: Llama, recipe: Reinforcement, *, log: Path) -> None:
    """Reinforce `model` in place; each update appends one JSON line to `log`."""
    tokenizer = build()
    random = Random(f"reinforce/{recipe.seed}")
    replay = _replay(recipe, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.0)
    begun = time.monotonic()
    for update in range(recipe.updates):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * (1 - update / recipe.updates)
        optimizer.zero_grad(set_to_none=True)
        line: dict[str, float] = {"update": update + 1}
        if recipe.reward:
            problems = [train_question(random) for _ in range(recipe.problems)]
            rolled = rollout(model, problems, recipe, update=update, tokenizer=tokenizer)
            line["right"] = float(rolled.rewards.mean())
            line["mixed"] = float((rolled.rewards.std(axis=1) > 0).mean())
            loss = policy_loss(model, rolled)
            if loss is not None:
                (recipe.reward * loss).backward()
        if recipe.replay:
            replayed = loss_of(model, *next(replay))
            line["replay"] = replayed.item()
            (recipe.replay * replayed).backward()
        line["gradient"] = float(torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip))
        optimizer.step()
        line["seconds"] = time.monotonic() - begun
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print("  ".join(f"{key} {value:.4g}" for key, value in line.items()), flush=True)


def _replay(recipe: Reinforcement, tokenizer: Tokenizer) -> Iterator[tuple[Tensor, Tensor]]:
    schedule = Schedule(batch_tokens=recipe.replay_tokens, seed=recipe.seed + 1)
    # A conversation of one step has no check to keep.
    whole = Recipe()
    lengths = whole.lengths if recipe.replay_first else (0.0, *whole.lengths[1:])
    return batches(Recipe(lengths=lengths, first=recipe.replay_first), schedule, tokenizer)


def main() -> None:
    """Reinforce a checkpoint."""
    recipe = Reinforcement()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, required=True, help="model.pt or Hugging Face folder to start from")
    parser.add_argument("--out", type=Path, required=True, help="folder for model.pt and the log")
    parser.add_argument("--updates", type=int, default=recipe.updates)
    parser.add_argument("--rate", type=float, default=recipe.rate)
    parser.add_argument("--reward", type=float, default=recipe.reward, help="weight of the rewards; 0: only replay")
    parser.add_argument("--replay", type=float, default=recipe.replay, help="weight of pre-training conversations")
    parser.add_argument("--replay-first", action="store_true", help="train the first steps of the replay too")
    parser.add_argument("--seed", type=int, default=recipe.seed)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    recipe = Reinforcement(
        updates=options.updates,
        rate=options.rate,
        reward=options.reward,
        replay=options.replay,
        replay_first=options.replay_first,
        seed=options.seed,
    )
    model = load(options.start)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "settings.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    log = options.out / "log.jsonl"
    log.unlink(missing_ok=True)
    reinforce(model, recipe, log=log)
    torch.save(model.state_dict(), options.out / "model.pt")


if __name__ == "__main__":
    main()
