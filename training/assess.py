"""Assesses a checkpoint on problems that it was not trained on: `python -m training.assess RUN/model.pt`.

It uses the sequential shape: one step, then three times "Check again." with the earlier attempts in view. The table
shows the accuracy after each step, and how well the entropy of step 1 (raw logits, top 20 renormalised, bits) separates
right first answers from wrong ones. Recipes are chosen on the calibration split, which is the default, and never on the
test split.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, TypedDict

import numpy as np
import torch

from justenough.grading import Exact
from justenough.signal.entropy import sequence_entropy
from justenough.stats import Estimate, Separation, separation, wilson
from justenough.toy.families import Question, Split, questions
from training.checkpoints import load
from training.data import MAX_STEPS
from training.decoding import complete, engine_of, first_prompt, next_prompt, turn_text
from training.model import Llama
from training.tokenizer import build, end_of_sequence

MAX_TOKENS: Final = 160
WIDTH: Final = 64


@dataclass(frozen=True, slots=True)
class Attempt:
    """One problem's steps: which are right, which have no answer, their tokens, and the entropy of step 1 in bits."""

    question: Question
    right: tuple[bool, ...]
    unanswered: tuple[bool, ...]
    tokens: tuple[int, ...]
    entropy: float
    texts: tuple[str, ...]

    @property
    def group(self) -> str:
        """Family and level."""
        return f"{self.question.family}-{self.question.level}"


class Figures(TypedDict):
    """The table in its JSON form; every estimate is (value, low, high, n)."""

    steps: dict[str, list[Estimate | None]]
    cohens_d: Estimate | None
    auroc: Estimate | None
    within_groups: Estimate | None
    groups: dict[str, tuple[Estimate | None, Estimate | None]]
    verdict: str
    gating_refused: bool
    confidently_wrong: Estimate | None
    unanswered: list[int]
    tokens: list[float]


def attempt(
    model: Llama, problems: Sequence[Question], *, steps: int = MAX_STEPS, temperature: float = 0.8, seed: int = 0
) -> list[Attempt]:
    """Run each problem through all steps, whatever their answers are."""
    tokenizer = build()
    end = end_of_sequence(tokenizer)
    engine = engine_of(model, width=WIDTH)
    grader = Exact()
    prompts = [first_prompt(problem.text) for problem in problems]
    right: list[list[bool]] = [[] for _ in problems]
    unanswered: list[list[bool]] = [[] for _ in problems]
    tokens: list[list[int]] = [[] for _ in problems]
    texts: list[list[str]] = [[] for _ in problems]
    entropies: list[float] = []
    for step in range(1, steps + 1):
        completions = complete(
            engine,
            [tokenizer.encode(prompt).ids for prompt in prompts],
            keys=[(problem.text, step) for problem in problems],
            end=end,
            temperature=temperature,
            seed=seed,
            limit=MAX_TOKENS,
        )
        for index, (problem, completion) in enumerate(zip(problems, completions, strict=True)):
            text = turn_text(completion, tokenizer)
            answer = grader.extract(text)
            right[index].append(answer is not None and grader.grade(answer, str(problem.answer)))
            unanswered[index].append(answer is None)
            tokens[index].append(len(completion.entropies))
            texts[index].append(text)
            if step == 1:
                entropies.append(sequence_entropy(completion.entropies))
            prompts[index] = next_prompt(prompts[index], text)
    return [
        Attempt(problem, tuple(right[i]), tuple(unanswered[i]), tuple(tokens[i]), entropies[i], tuple(texts[i]))
        for i, problem in enumerate(problems)
    ]


def figures(attempts: Sequence[Attempt]) -> Figures:
    """Accuracy after each step, overall and by family and level, and the separation of step 1."""
    cells: dict[str, list[Attempt]] = defaultdict(list)
    for item in attempts:
        for cell in ("all", item.question.family, item.group):
            cells[cell].append(item)
    overall = separated(attempts)
    threshold = float(np.mean([item.entropy for item in attempts if item.right[0]] or [0.0]))
    wrong = [item for item in attempts if not item.right[0]]
    groups = {}
    for name in sorted({item.group for item in attempts}):
        alone = separated(cells[name])
        groups[name] = (alone.cohens_d, alone.auroc)
    return Figures(
        steps={
            cell: [
                wilson(sum(item.right[step] for item in members), len(members)) for step in range(len(members[0].right))
            ]
            for cell, members in sorted(cells.items(), key=lambda item: (item[0] != "all", item[0]))
        },
        cohens_d=overall.cohens_d,
        auroc=overall.auroc,
        within_groups=overall.within_groups,
        groups=groups,
        verdict=overall.sentence,
        gating_refused=overall.gating_refused,
        confidently_wrong=wilson(sum(item.entropy <= threshold for item in wrong), len(wrong)),
        unanswered=[sum(item.unanswered[step] for item in attempts) for step in range(len(attempts[0].right))],
        tokens=[float(np.mean([item.tokens[step] for item in attempts])) for step in range(len(attempts[0].right))],
    )


def separated(attempts: Sequence[Attempt]) -> Separation:
    """How well the entropy of step 1 separates right from wrong answers, grouped by family and level."""
    return separation(
        np.array([item.entropy for item in attempts]),
        np.array([item.right[0] for item in attempts]),
        groups=[item.group for item in attempts],
    )


def table(result: Figures) -> str:
    """The figures as a text table."""
    lines = [f"{'accuracy':12s}    n   step 1                {'step 2':>9s}{'step 3':>9s}{'step 4':>9s}"]
    for cell, row in result["steps"].items():
        first = row[0]
        if first is not None:
            rest = "".join(f"{item.value:9.1%}" for item in row[1:] if item is not None)
            d, area = result["groups"].get(cell, (None, None))
            inside = f"   d {_brief(d)}  AUROC {_brief(area)}" if cell in result["groups"] else ""
            limits = f"[{first.low:6.1%}, {first.high:6.1%}]"
            lines.append(f"{cell:12s} {first.n:4d}   {first.value:6.1%} {limits}{rest}{inside}")
    refused = "refused" if result["gating_refused"] else "not refused"
    lines += [
        f"tokens a step        {', '.join(f'{mean:.1f}' for mean in result['tokens'])}",
        f"unanswered           {', '.join(str(count) for count in result['unanswered'])}",
        f"Cohen's d            {_long(result['cohens_d'])}",
        f"AUROC                {_long(result['auroc'])}",
        f"AUROC within groups  {_long(result['within_groups'])}",
        f"confidently wrong    {_long(result['confidently_wrong'])} (wrong, at most the right ones' mean)",
        f"verdict              {result['verdict']}; gating {refused}",
    ]
    return "\n".join(lines)


def _brief(item: Estimate | None) -> str:
    return "—" if item is None else f"{item.value:.2f}"


def _long(item: Estimate | None) -> str:
    if item is None:
        return "cannot be estimated"
    limits = "no interval" if item.interval is None else f"[{item.interval[0]:.3f}, {item.interval[1]:.3f}]"
    return f"{item.value:.3f} {limits}, n {item.n}"


def main() -> None:
    """Assess one checkpoint and write the figures to `assess.json` next to a run's `model.pt`, or to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="model.pt of a run, or a Hugging Face folder")
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--steps", type=int, default=MAX_STEPS)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0, help="seed of the problems and of the sampling noise")
    parser.add_argument("--split", choices=("calibration", "test"), default="calibration")
    parser.add_argument("--show", type=int, default=0, help="print this many of the first conversations")
    parser.add_argument("--out", type=Path, help="where to write the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    split: Split = options.split
    problems = list(islice(questions(split, seed=options.seed), options.problems))
    attempts = attempt(
        load(options.checkpoint), problems, steps=options.steps, temperature=options.temperature, seed=options.seed
    )
    for item in attempts[: options.show]:
        print(item.question.text, item.question.answer, *(repr(text) for text in item.texts), sep="\n  ")
    result = figures(attempts)
    print(table(result))
    settings = {key: getattr(options, key) for key in ("problems", "steps", "temperature", "seed", "split")}
    out = options.out or (None if options.checkpoint.is_dir() else options.checkpoint.with_name("assess.json"))
    if out is not None:
        out.write_text(json.dumps({"settings": settings, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
