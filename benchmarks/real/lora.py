"""Trains a small LoRA on a model's own answers and merges it into the weights. Needs torch and transformers.

    pip install accelerate          # Transformers needs it to read GGUF files
    python -m benchmarks.real.lora --model FILE.gguf --out base
    python -m benchmarks.real.lora --model base --samples SAMPLES.parquet --arm right --seed 0 --out right-0

Without `--arm`, a GGUF file is only converted to Hugging Face form. The samples are traces of one step that `justenough
collect` recorded and graded, several for each problem. The loss is that of the answer's tokens. The arms:

- `right`: right answers only, at most 2 of a problem (rejection-sampled fine-tuning);
- `any`: as many answers of the same problems, drawn without regard to their grades (the control);
- `advantage`: all answers of the problems with both kinds, each weighted by its reward less the mean of its problem
  (a policy gradient with a baseline by group; exact for the first update only, as the base model drew the samples).
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from benchmarks.real.prompts import SENTENCE
from justenough.trace import Trace
from justenough.trace.files import read_traces

Arm = Literal["right", "any", "advantage"]
RANK: Final = 8
RATE: Final = 1e-3
BATCH: Final = 16
MOST: Final = 256
"""Answers of one epoch."""
EPOCHS: Final = 3
OF_PROBLEM: Final = 2
"""Most right answers that a problem gives."""


class Chosen(NamedTuple):
    """An answer to learn from."""

    problem: str
    text: str
    ended: bool
    """Whether the model ended its answer by itself."""
    weight: float = 1.0


class Tokens(NamedTuple):
    """A chosen answer as token ids."""

    prompt: list[int]
    answer: list[int]
    weight: float


class Adapter(nn.Module):
    """A linear layer plus a product of two narrow matrices, which is zero at first."""

    def __init__(self, inner: nn.Linear, rank: int) -> None:
        super().__init__()
        self.inner = inner
        self.down = nn.Parameter(torch.randn(rank, inner.in_features) / inner.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(inner.out_features, rank))

    def forward(self, states: Tensor) -> Tensor:
        """The layer's output with the correction."""
        corrected: Tensor = self.inner(states) + states @ self.down.T @ self.up.T
        return corrected

    def merged(self) -> nn.Linear:
        """The layer with the correction in its weights."""
        with torch.no_grad():
            self.inner.weight += self.up @ self.down
        return self.inner


def adapt(network: Any, *, rank: int = RANK) -> list[nn.Parameter]:
    """Freeze the network and put an adapter around each linear layer except the head; returns the new parameters."""
    network.requires_grad_(requires_grad=False)
    parameters: list[nn.Parameter] = []
    for parent in list(network.model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                adapter = Adapter(child, rank)
                setattr(parent, name, adapter)
                parameters += [adapter.down, adapter.up]
    return parameters


def merge(network: Any) -> None:
    """Undo `adapt`, with the corrections in the weights."""
    for parent in list(network.model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Adapter):
                setattr(parent, name, child.merged())


def chosen(samples: Sequence[Trace], arm: Arm, *, seed: int) -> list[Chosen]:
    """The answers that an arm learns from; `right` and `any` have the same number of each problem."""
    draw = random.Random(f"lora-{seed}")
    by_problem: dict[str, list[Trace]] = defaultdict(list)
    for trace in samples:
        by_problem[trace.problem or ""].append(trace)
    picked: list[Chosen] = []
    for problem, traces in by_problem.items():
        right = [trace for trace in traces if trace.steps[0].is_correct]
        # Both arms draw the same numbers, so they have the same problems in the same order.
        kept = draw.sample(right, min(OF_PROBLEM, len(right)))
        others = draw.sample(traces, len(kept))
        if arm == "advantage":
            kept = traces if 0 < len(right) < len(traces) else []
        for trace in others if arm == "any" else kept:
            weight = trace.steps[0].is_correct - len(right) / len(traces) if arm == "advantage" else 1.0
            picked.append(Chosen(problem, trace.steps[0].text, trace.steps[0].finish == "stop", weight))
    draw.shuffle(picked)
    return picked[:MOST]


def tokens(tokenizer: Any, answers: Sequence[Chosen]) -> list[Tokens]:
    """The answers after the prompt with which they were collected."""
    end = [tokenizer.eos_token_id]

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt(problem: str) -> list[int]:
        turn = {"role": "user", "content": SENTENCE.prompts.ask.replace("{problem}", problem)}
        return ids(tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True))

    return [Tokens(prompt(one.problem), ids(one.text) + end * one.ended, one.weight) for one in answers]


def loss(network: Any, batch: Sequence[Tokens]) -> Tensor:
    """Weighted cross-entropy of the answers' tokens, by token. The common beginning of the prompts is read once."""
    shortest = min(len(each.prompt) for each in batch) - 1
    first = batch[0].prompt
    common = next((at for at in range(shortest) if any(each.prompt[at] != first[at] for each in batch)), shortest)
    cache = network.model(torch.tensor([first[:common]]), use_cache=True).past_key_values
    for layer in cache.layers:
        layer.keys, layer.values = (part.expand(len(batch), -1, -1, -1) for part in (layer.keys, layer.values))
    rests = [each.prompt[common:] + each.answer[:-1] for each in batch]
    longest = max(map(len, rests))
    # What is filled in stands at the end, where nothing that counts attends to it.
    rows = torch.tensor([rest + [0] * (longest - len(rest)) for rest in rests])
    states = network.model(rows, past_key_values=cache, use_cache=True).last_hidden_state
    places = [
        (row, len(each.prompt) - common - 1 + at) for row, each in enumerate(batch) for at in range(len(each.answer))
    ]
    at = torch.tensor(places).T
    logits = network.lm_head(states[at[0], at[1]])
    targets = torch.tensor([token for each in batch for token in each.answer])
    weights = torch.tensor([each.weight for each in batch for _ in each.answer])
    return (weights * nn.functional.cross_entropy(logits, targets, reduction="none")).sum() / len(weights)


def train(network: Any, answers: Sequence[Tokens], *, seed: int, rate: float = RATE) -> list[float]:
    """Train adapters on the answers and merge them; returns the loss of each update."""
    torch.manual_seed(seed)
    draw = random.Random(f"order-{seed}")
    parameters = adapt(network)
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    order = [one for _ in range(EPOCHS) for one in draw.sample(list(answers), len(answers))]
    batches = [order[first : first + BATCH] for first in range(0, len(order), BATCH)]
    losses: list[float] = []
    begun = time.monotonic()
    for number, batch in enumerate(batches):
        # Up over the first tenth, then down to zero.
        left, warm = (len(batches) - number) / len(batches), (number + 1) / max(1, len(batches) // 10)
        optimiser.param_groups[0]["lr"] = rate * min(left, warm, 1.0)
        optimiser.zero_grad()
        value = loss(network, batch)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        losses.append(value.item())
        print(
            f"update {number + 1}/{len(batches)}: loss {losses[-1]:.3f}, {time.monotonic() - begun:.0f} s", flush=True
        )
    merge(network)
    return losses


def load(path: Path) -> tuple[Any, Any]:
    """Network and tokenizer of a folder in Hugging Face form, or of a GGUF file with its weights dequantised."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = path.name if path.suffix == ".gguf" else None
    place: dict[str, Any] = {"pretrained_model_name_or_path": path.parent if gguf else path, "gguf_file": gguf}
    tokenizer = AutoTokenizer.from_pretrained(local_files_only=True, **place)
    network: Any = AutoModelForCausalLM.from_pretrained(local_files_only=True, dtype=torch.float32, **place)
    if gguf:
        # The marker of a quantised model forbids saving; the weights are no longer quantised.
        for holder, name in ((network.config, "quantization_config"), (network, "quantization_method")):
            if hasattr(holder, name):
                delattr(holder, name)
        network.is_quantized, network.hf_quantizer = False, None
    return network, tokenizer


def main() -> int:
    """Train one model, or only convert it, and save it in Hugging Face form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--samples", type=Path)
    parser.add_argument("--arm", choices=get_args(Arm))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if (options.arm is None) != (options.samples is None):
        parser.error("--arm and --samples belong together")
    torch.set_num_threads(1)
    network, tokenizer = load(options.model)
    if options.arm is not None:
        answers = chosen(read_traces(options.samples).traces, options.arm, seed=options.seed)
        print(f"{len(answers)} answers, {sum(each.weight for each in answers):.1f} in weight", flush=True)
        train(network, tokens(tokenizer, answers), seed=options.seed)
    network.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
