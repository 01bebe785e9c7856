"""One card for each real model: its weights, what was run with it and how, and the figures of the committed files.

`python -m benchmarks.real.tables` writes the cards, and its `--check` compares them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.real.figures import (
    change,
    diagnosis_of,
    evaluation_of,
    fraction,
    live_of,
    number,
    outcome,
    traces_of,
)
from benchmarks.real.packages import Weights, catalogue
from benchmarks.real.plan import PLANS, Plan
from justenough.stats.text import percent

FOLDER: Final = Path(__file__).with_name("cards")


class About(NamedTuple):
    """What no file says of a model."""

    kind: str
    use: str
    """What its figures are good for, and what not."""


ABOUT: Final = {
    "smollm2-135m": About(
        "instruction-tuned, 135 million parameters, no reasoning training",
        "The smallest model of the four, for tests and quick runs. It does not follow a longer instruction and seldom"
        " writes an answer's cue, so it has no streaming shape. Its answers get worse when it looks at them again:"
        " whatever stops early gains here, so a gain is no evidence for the entropy.",
    ),
    "gemma3-270m": About(
        "**base** model, 270 million parameters, neither instruction-tuned nor trained to reason",
        "The only base model here. It sees five worked examples before each question (`few_shot.jinja`). Later steps"
        " are new attempts beside the old ones. In sums it nearly always repeats its answer, so only its first step is"
        " of interest there. On questions of fact the second attempt helps: the one task here that gains by it.",
    ),
    "qwen2.5-coder-0.5b": About(
        "instruction-tuned for code, 0.5 billion parameters, no reasoning training",
        "The model that `make real` takes. It is the only one with a finished collection in the streaming shape.",
    ),
    "qwen2.5-coder-1.5b": About(
        "instruction-tuned for code, 1.5 billion parameters, no reasoning training",
        "The largest model here. Its word problems would take many hours on two cores and were not collected.",
    ),
}


def cards(files: Path, folder: Path = FOLDER) -> dict[Path, str]:
    """The text of each model's card by its path."""
    return {folder / f"{name}.md": card(weights, files) for name, weights in catalogue().items()}


def card(weights: Weights, files: Path) -> str:
    """One model's card."""
    about = ABOUT[weights.name]
    plans = [plan for plan in PLANS.values() if plan.model == weights.name]
    packages = sorted({(part.package, part.version) for part in weights.parts}, key=lambda one: (len(one[0]), one))
    (first, version), (last, _) = packages[0], packages[-1]
    origin = f"`{first}=={version}`" if first == last else f"`{first}=={version}` to `{last}=={version}`, joined"
    blocks = [
        [f"# {weights.about}"],
        [
            "`python -m benchmarks.real.tables` writes this card from the pinned packages and the committed files."
            " Intervals are 95 %."
        ],
        ["## Weights"],
        [
            f"- Model: {about.kind}.",
            f"- File: `{weights.file}`, {weights.bytes:,} bytes, SHA-256 `{weights.sha256}`.",
            f"- From the package index: {origin}. `packages.json` pins each package; none is committed here.",
            f"- Licence: {weights.licence}.",
        ],
        ["## How it was run"],
        [
            "llama.cpp's own server on a processor, one thread, with the chat template of the file, if it has one. The"
            " truncating samplers are off. Seed 0, at most 4 steps. The signal is the paper's: mean bits of the 20"
            " largest log-probabilities, renormalised, from before the temperature. Files that name no shape are from"
            " earlier runs with other prompts and limits. [More](../README.md#how)."
        ],
        _runs(plans),
        ["## What the files say"],
        _figures(weights.name, files),
        ["## Live, through the gateway"],
        _live(weights.name, files),
        ["## What it is good for"],
        [about.use],
        ["## Prompts"],
        *_prompts(weights.name, plans, files),
    ]
    return "\n".join("\n".join([*block, ""]) for block in blocks if block)


def _runs(plans: Sequence[Plan]) -> list[str]:
    """How each task is run."""
    lines = ["| task | temperature | limit of a step | prompts | command |", "|---|---:|---:|---|---|"]
    for plan in plans:
        prompts = ", ".join(f"`{name}` ({shape})" for shape, name in plan.prompts.items())
        command = f'`make real REAL_ARGS="--model {plan.model} --task {plan.task}"`'
        lines.append(f"| `{plan.task}` | {plan.temperature} | {plan.max_tokens} | {prompts} | {command} |")
    return lines


def _files(model: str, files: Path, pattern: str) -> Iterable[tuple[Path, str]]:
    """The files of a model, and what they are called beside its name."""
    for path in sorted(files.glob(pattern)):
        if path.name.startswith(f"{model}."):
            yield path, path.name.removeprefix(f"{model}.").removesuffix(pattern[1:])


def _figures(model: str, files: Path) -> list[str]:
    """One row for each file: the signal, and two ways to stop."""
    lines = [
        "| file (n) | right: step 1, last step | d | AUROC | within groups | within lengths | of the length | verdict |"
        " entropy mean, 10 labels: saved; change | step 1 always: saved; change |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for path, name in _files(model, files, "*.parquet"):
        traces, diagnosis = traces_of(path), diagnosis_of(path)
        extended = any(len(trace.steps) > 1 for trace in traces)
        rules = evaluation_of(path)["rules"] if extended else {}
        last = percent(sum(trace.steps[-1].is_correct for trace in traces) / len(traces))
        cells = [
            f"`{name}` ({len(traces)})",
            f"{percent(diagnosis['accuracy_first'])}, {last if extended else '–'}",
            number(diagnosis, "cohens_d", digits=2),
            *(
                number(diagnosis, key, digits=3)
                for key in ("auroc", "auroc_within_groups", "auroc_within_lengths", "length_auroc")
            ),
            diagnosis["verdict"],
            *(outcome(rules[rule]) if rule in rules else "–" for rule in ("entropy-mean", "always-one-step")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines if len(lines) > 2 else ["No file of this model is committed yet."]


def _live(model: str, files: Path) -> list[str]:
    """One row for each live run, in the server's own tokens."""
    lines = ["| run (n) | tokens saved | right, change in points | time saved |", "|---|---|---|---|"]
    for path, name in _files(model, files / "live", "*.live.jsonl"):
        live = live_of(path)
        if live is not None:
            right = f"{percent(live.accuracy_alone)} → {percent(live.accuracy_gateway)}, {change(live.accuracy_change)}"
            cells = (f"`{name}` ({live.problems})", fraction(live.saving), right, fraction(live.time_saving))
            lines.append(f"| {' | '.join(cells)} |")
    return lines if len(lines) > 2 else ["No live run of this model is committed yet."]


def _prompts(model: str, plans: Sequence[Plan], files: Path) -> Iterable[list[str]]:
    """The texts that the traces keep, each once."""
    seen: dict[str, str] = {}
    for path, _ in _files(model, files, "*.parquet"):
        prompts = traces_of(path)[0].prompts
        if prompts is not None:
            texts = {
                "first step": prompts.ask,
                "later steps": prompts.refine,
                "elicited answer": prompts.answer,
            }
            seen.setdefault(prompts.name, json.dumps(texts, ensure_ascii=False, indent=2))
    if not seen:
        yield [f"{', '.join(sorted({name for plan in plans for name in plan.prompts.values()}))}: see `prompts.py`."]
    for name, text in seen.items():
        yield [f"`{name}`:"]
        yield ["```json", text, "```"]
