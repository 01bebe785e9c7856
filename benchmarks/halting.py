"""HALT-CoT's own quantity on a real model.

    python -m benchmarks.halting PATH/hmmt25_multistep_answer_histograms.jsonl.gz

The data: github dreamyang-liu/deepconf at def1a29e (MIT). Thoughts of DeepSeek-R1-0528-Qwen3-8B on 7 problems of HMMT
February 2025, each cut after 2,048, 4,096, … 32,768 tokens, and 512 answers forced at each cut: the very distribution
whose entropy HALT-CoT watches, which one recorded answer can only stand for. Seven problems show what can happen, not
how often. Which answers belong to one thought was not kept: agreement of successive answers is computed as if each were
drawn anew. The source counts answers as texts and so takes a truth written as `\\frac` for unreached; here answers of
equal value are one.
"""

from __future__ import annotations

import ast
import gzip
import json
import math
import operator
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np

from benchmarks.recorded.show import table
from benchmarks.timing import write
from justenough.stats import Estimate, paired_bootstrap
from justenough.stats.text import percent, points

THRESHOLDS: Final = (0.1, 0.25, 0.5, 1.0)
"""Bits."""
AGREEING: Final = (2, 3, 4)
TRUTH: Final = "right"
"""Name of every right answer."""


_LATEX: Final = (
    (re.compile(r"\\frac\{((?:[^{}]|\{[^{}]*\})*)\}\{([^{}]*)\}"), r"(\1)/(\2)"),
    (re.compile(r"\\sqrt\{([^{}]*)\}"), r"sqrt(\1)"),
    (re.compile(r"(?<=\d)\s+(?=sqrt)"), "*"),
)
_BINARY: Final[Mapping[type, Callable[[float, float], float]]] = MappingProxyType(
    {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: math.pow}
)
DIGITS: Final = 9
"""Of a value, that make two answers one."""


class Cut(NamedTuple):
    """A problem's answers after so many tokens of thought."""

    tokens: int
    shares: dict[str, float]
    right: float
    """Share of right answers."""

    @property
    def entropy(self) -> float:
        """Of the answers, bits."""
        p = np.array(list(self.shares.values()))
        return max(0.0, float(-(p * np.log2(p)).sum()))


class Stopped(NamedTuple):
    """Expected outcome of a rule on a problem."""

    right: float
    tokens: float
    """Thought allowed, at most."""


def meaning(answer: str) -> str:
    """An answer by its value, so that equal ones are one; as it stands where it has none."""
    plain = answer
    for pattern, said in _LATEX:
        plain = pattern.sub(said, plain)
    try:
        return f"{_value(ast.parse(plain, mode='eval').body):.{DIGITS}g}"
    except (SyntaxError, ValueError, ArithmeticError, RecursionError):
        return answer


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left), _value(right))
        case ast.Call(func=ast.Name(id="sqrt"), args=[inner]):
            return math.sqrt(_value(inner))
    raise ValueError(ast.dump(node))


def read(path: Path) -> dict[int, list[Cut]]:
    """Every problem's cuts, the shortest first."""
    problems: dict[int, list[Cut]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            total = sum(row["answers"].values())
            shares: dict[str, float] = {}
            truth = meaning(row["ground_truth"])
            for answer, count in row["answers"].items():
                # The truth by one name, so that a rule's stops there can be told.
                key = TRUTH if meaning(answer) == truth else meaning(answer)
                shares[key] = shares.get(key, 0.0) + count / total
            cut = Cut(row["thinking_token_cutoff"], shares, shares.get(TRUTH, 0.0))
            problems.setdefault(row["qid"], []).append(cut)
    return {problem: sorted(cuts, key=lambda cut: cut.tokens) for problem, cuts in sorted(problems.items())}


def halted(cuts: Sequence[Cut], threshold: float, *, consecutive: int = 1) -> Stopped:
    """At the first cut that ends a run of entropies at or below the threshold, else at the last."""
    run = 0
    for cut in cuts:
        run = run + 1 if cut.entropy <= threshold else 0
        if run == consecutive:
            return Stopped(cut.right, cut.tokens)
    return Stopped(cuts[-1].right, cuts[-1].tokens)


def converged(cuts: Sequence[Cut], agreeing: int) -> Stopped:
    """At the first cut that ends a run of `agreeing` equal answers, one drawn at each cut; exactly, by its states."""
    running: list[dict[str, float]] = [{} for _ in range(agreeing)]
    left, right, tokens = 1.0, 0.0, 0.0
    for cut in cuts:
        following: list[dict[str, float]] = [{} for _ in range(agreeing)]
        for answer, share in cut.shares.items():
            same = [state.get(answer, 0.0) for state in running]
            following[0][answer] = share * (left - sum(same))
            for length in range(1, agreeing):
                following[length][answer] = share * same[length - 1]
        stopping = following.pop()
        running = [*following, {}]
        right += stopping.get(TRUTH, 0.0)
        tokens += cut.tokens * sum(stopping.values())
        left -= sum(stopping.values())
    return Stopped(right + left * cuts[-1].right, tokens + left * cuts[-1].tokens)


def change(stopped: Sequence[Stopped], problems: Sequence[Sequence[Cut]]) -> Estimate:
    """In accuracy against the whole thought; the problem is the unit."""
    return paired_bootstrap(np.array([at.right - cuts[-1].right for at, cuts in zip(stopped, problems, strict=True)]))


def main() -> None:
    """Both tables."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    problems = read(Path(sys.argv[1]))
    print("Bits of the answers' distribution, and share right, after so many tokens of thought")
    wanted = [0, 1, 3, 5, 7, 11, 15]
    any_cuts = next(iter(problems.values()))
    table(
        ["problem", *[f"{any_cuts[at].tokens:,}" for at in wanted]],
        [
            [str(problem), *[f"{cuts[at].entropy:.2f} ({percent(cuts[at].right, digits=0)})" for at in wanted]]
            for problem, cuts in problems.items()
        ],
    )
    rules = {f"halt-cot:{bits:g}": [halted(cuts, bits) for cuts in problems.values()] for bits in THRESHOLDS}
    rules |= {
        f"halt-cot:{bits:g}, twice in a row": [halted(cuts, bits, consecutive=2) for cuts in problems.values()]
        for bits in THRESHOLDS
    }
    rules |= {
        f"answer-convergence:{count}": [converged(cuts, count) for cuts in problems.values()] for count in AGREEING
    }
    whole = float(np.mean([cuts[-1].right for cuts in problems.values()]))
    most = any_cuts[-1].tokens
    print(f"\nAgainst the whole thought, right in {percent(whole)}; {len(problems)} problems, 95 % bootstrap over them")
    rows, found = [], dict[str, object]()
    for name, stopped in rules.items():
        moved = change(stopped, list(problems.values()))
        allowed = float(np.mean([at.tokens for at in stopped]))
        rows.append([name, percent(1 - allowed / most), percent(whole + moved.value), points(moved)])
        found[name] = {"thought_saved": 1 - allowed / most, "change": moved._asdict()}
    table(["rule", "thought not allowed", "right", "change (points)"], rows)
    write(
        "halting",
        {
            "whole": whole,
            "rules": found,
            "problems": {
                str(problem): [[cut.tokens, cut.entropy, cut.right] for cut in cuts]
                for problem, cuts in problems.items()
            },
        },
    )


if __name__ == "__main__":
    main()
