"""Trains exits on the frozen network. Needs torch.

Each exit predicts the next token from the state behind its layer. The loss is a weighted mean of the cross-entropies
of the exits; later exits have larger weights (CALM, arXiv 2207.07061, equation 6, without the last layer, which is
frozen). The network does not change: this is DeeBERT's second stage, arXiv 2004.12993 (CALM trains network and heads
together).
Early classifiers learn at the same time whether their exit and the network have the same most likely token.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from justenough.backends.layers.certificate import tokenizer_digest
from justenough.backends.layers.ramps import ExitSettings, OffRamps, network_digest
from justenough.backends.protocol import Message
from justenough.backends.transformers import Checkpoint
from justenough.errors import InputError
from justenough.files import lines_of, read_as

Targets = Literal["labels", "backbone"]
Batches = Iterable[tuple[Tensor, Tensor]]
"""Token ids and trained positions, each (B, T)."""
Report = Callable[[int, float], None]
"""Takes the tokens so far and the mean loss since the last report."""
_HINT = (
    'JSON Lines with "text", or with "messages" (content, and role: system, user or assistant), or a .txt file with one'
    " text on each line"
)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How exits are trained."""

    tokens: int = 1_000_000
    batch_tokens: int = 3_000
    peak: float = 3e-3
    """The highest learning rate."""
    warm_up: int = 50
    """Updates until the highest rate."""
    targets: Targets = "labels"
    """The target: the data's next tokens (`labels`), or the distribution of the whole network (`backbone`)."""
    seed: int = 0
    every: int = 50
    """Updates between two reports."""


def hidden_states(network: Any, ids: Tensor) -> tuple[list[Tensor], Tensor]:
    """The states (B, T, d) behind each layer except the last, and the network's own logits (B, T, V)."""
    with torch.no_grad():
        out = network(ids.to(network.device), output_hidden_states=True, use_cache=False)
    return list(out.hidden_states[1:-1]), out.logits


def loss_of(ramps: OffRamps, states: list[Tensor], logits: Tensor, ids: Tensor, mask: Tensor, how: Targets) -> Tensor:
    """The weighted loss over the positions that predict a trained token, shape ()."""
    chosen, settings = mask[:, 1:].to(logits.device), ramps.settings
    whole = logits[:, :-1][chosen].float()
    target = ids.to(logits.device)[:, 1:][chosen] if how == "labels" else whole.softmax(dim=-1)
    total = torch.zeros((), device=logits.device)
    for layer in settings.layers:
        normed = ramps.normed(states[layer - 1][:, :-1][chosen], layer)
        predicted = ramps.logits(normed, layer)
        total = total + layer / sum(settings.layers) * F.cross_entropy(predicted, target)
        if settings.classifier:
            agrees = (predicted.argmax(dim=-1) == whole.argmax(dim=-1)).float()
            trust = ramps.trust(normed.detach(), layer)
            total = total + F.binary_cross_entropy_with_logits(trust, agrees)
    return total


def train(network: Any, ramps: OffRamps, source: Batches, training: Training, report: Report) -> OffRamps:
    """Train new exits of a network, which itself stays as it is."""
    network.requires_grad_(False)
    ramps.to(network.device)
    optimizer = torch.optim.AdamW(ramps.parameters(), lr=training.peak, betas=(0.9, 0.98), weight_decay=0.0)
    seen, running = 0, 0.0
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
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seen += ids.numel()
        running += loss.item()
        if update % training.every == training.every - 1:
            report(seen, running / training.every)
            running = 0.0
    return ramps.eval()


@torch.no_grad()
def agreement(network: Any, ramps: OffRamps, source: Batches) -> tuple[float, ...]:
    """How often each exit has the same most likely token as the network, on texts that are not trained."""
    agreed = [0] * len(ramps.settings.layers)
    count = 0
    for ids, mask in source:
        chosen = mask[:, 1:].to(network.device)
        states, logits = hidden_states(network, ids)
        whole = logits[:, :-1][chosen].argmax(dim=-1)
        count += len(whole)
        for at, layer in enumerate(ramps.settings.layers):
            agreed[at] += int((ramps(states[layer - 1][:, :-1][chosen], layer).argmax(dim=-1) == whole).sum())
    return tuple(number / count for number in agreed)


def exit_layers(depth: int, every: int) -> tuple[int, ...]:
    """Every n-th layer of a network except its last; raises `InputError` if there is none."""
    layers = tuple(range(every, depth, every)) if every > 0 else ()
    if not layers:
        hint = f"use 1 to {depth - 1}" if depth > 1 else "exits need a model with at least two layers"
        raise InputError(f"no exit fits: every {every} of {depth} layers", hint=hint)
    return layers


def read_texts(path: Path, checkpoint: Checkpoint) -> list[list[int]]:
    """The token ids of the texts of a file, by the tokenizer of the checkpoint. Long texts are cut."""
    texts: list[list[int]] = []
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(lines_of(file, path), 1):
                if raw.strip():
                    texts.append(_ids(raw, checkpoint, where=f"{path}:{number}", plain=path.suffix == ".txt"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}", hint=_HINT) from error
    texts = [ids[: checkpoint.positions] for ids in texts if len(ids) > 1]
    if len(texts) < 2:
        hint = "give at least two: the last tenth measures how well the exits agree"
        raise InputError(f"{path} has {len(texts)} texts of at least two tokens", hint=hint)
    return texts


def _ids(raw: bytes, checkpoint: Checkpoint, *, where: str, plain: bool) -> list[int]:
    try:
        row = {"text": raw.decode().strip()} if plain else json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not {'UTF-8' if plain else 'JSON'}: {error}", hint=_HINT) from error
    if isinstance(row, dict) and "messages" in row:
        messages = read_as(row["messages"], tuple[Message, ...], where=f"{where}: messages", hint=_HINT)
        return checkpoint.conversation(messages, continue_final=False)
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise InputError(f"{where}: there is no text", hint=_HINT)
    return checkpoint.ids(row["text"])


def batches(texts: Sequence[Sequence[int]], *, batch_tokens: int, seed: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of the texts, each token trained: without end, in a new order each time, or once if `seed` is None."""
    random = Random(seed)
    while True:
        batch: list[Sequence[int]] = []
        for text in texts if seed is None else random.sample(texts, len(texts)):
            width = max(len(each) for each in (*batch, text))
            if batch and (len(batch) + 1) * width > batch_tokens:
                yield _padded(batch)
                batch = []
            batch.append(text)
        yield _padded(batch)
        if seed is None:
            return


def _padded(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, texts))
    ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts])
    mask = torch.arange(width)[None] < torch.tensor([len(text) for text in texts])[:, None]
    return ids, mask


def new_exits(folder: Path, checkpoint: Checkpoint, *, every: int, shared_head: bool) -> OffRamps:
    """Exits behind every n-th layer of the checkpoint in a folder, before training."""
    settings = ExitSettings(
        layers=exit_layers(int(checkpoint.network.config.num_hidden_layers), every),
        shared_head=shared_head,
        tokenizer=tokenizer_digest(folder),
        network=network_digest(folder),
    )
    return OffRamps(checkpoint.network, settings)
