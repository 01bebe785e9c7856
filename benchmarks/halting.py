"""Measures HALT-CoT's own quantity on a real model.

    python -m benchmarks.halting PATH/hmmt25_multistep_answer_histograms.jsonl.gz

The data: github dreamyang-liu/deepconf at def1a29e (MIT). Thoughts of DeepSeek-R1-0528-Qwen3-8B on 7 problems of HMMT
February 2025. Each thought is cut after 2,048, 4,096, … 32,768 tokens, and 512 answers are forced at each cut. This is
the distribution whose entropy HALT-CoT watches. Seven problems show what can happen, not how often. The data does not
record which answers belong to one thought, so agreement of successive answers is computed for independent draws. The
lengths of the answers are not recorded either, so each forced answer is charged as one token: the least that it takes.
HALT-CoT pays for all 512 at every cut that it looks at. The source counts answers as texts, so it misses a right answer
that is written as `\\frac`; here answers of equal value are the same answer.
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

THRESHOLDS: Final = (0.1, 0.25, 0.5, 0.6, 1.0)
"""Bits."""
AGREEING: Final = (2, 3, 4)
TRUTH: Final = "right"
"""The name that replaces every right answer."""


_LATEX: Final = (
    (re.compile(r"\\frac\{((?:[^{}]|\{[^{}]*\})*)\}\{([^{}]*)\}"), r"(\1)/(\2)"),
    (re.compile(r"\\sqrt\{([^{}]*)\}"), r"sqrt(\1)"),
    (re.compile(r"(?<=\d)\s+(?=sqrt)"), "*"),
)
_BINARY: Final[Mapping[type, Callable[[float, float], float]]] = MappingProxyType(
    {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: math.pow}
)
DIGITS: Final = 9
"""Two answers are equal if their values agree to this many digits."""


class Cut(NamedTuple):
    """The answers to a problem after a number of thinking tokens."""

    tokens: int
    shares: dict[str, float]
    right: float
    """Share of right answers."""
    answers: int
    """Number of forced answers."""

    @property
    def entropy(self) -> float:
        """Entropy of the answers in bits."""
        p = np.array(list(self.shares.values()))
        return max(0.0, float(-(p * np.log2(p)).sum()))


class Stopped(NamedTuple):
    """Expected outcome of a rule on a problem."""

    right: float
    tokens: float
    """The allowed thinking tokens."""
    forced: float
    """Answers that were forced to decide; each takes at least one token."""


def meaning(answer: str) -> str:
    """The value of an answer as text, so equal answers have equal texts; an answer without a value stays as it is."""
    plain = answer
    for pattern, replacement in _LATEX:
        plain = pattern.sub(replacement, plain)
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
    """The cuts of every problem, the shortest first."""
    problems: dict[int, list[Cut]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            total = sum(row["answers"].values())
            shares: dict[str, float] = {}
            truth = meaning(row["ground_truth"])
            for answer, count in row["answers"].items():
                # One name for all right answers, so stops at a right answer can be counted.
                key = TRUTH if meaning(answer) == truth else meaning(answer)
                shares[key] = shares.get(key, 0.0) + count / total
            cut = Cut(row["thinking_token_cutoff"], shares, shares.get(TRUTH, 0.0), total)
            problems.setdefault(row["qid"], []).append(cut)
    return {problem: sorted(cuts, key=lambda cut: cut.tokens) for problem, cuts in sorted(problems.items())}


def halted(cuts: Sequence[Cut], threshold: float, *, consecutive: int = 2) -> Stopped:
    """Stop at the first cut that ends a run of entropies below the threshold, else at the last cut."""
    run = forced = 0
    for cut in cuts:
        forced += cut.answers
        run = run + 1 if cut.entropy < threshold else 0
        if run == consecutive:
            return Stopped(cut.right, cut.tokens, forced)
    return Stopped(cuts[-1].right, cuts[-1].tokens, forced)


def converged(cuts: Sequence[Cut], agreeing: int) -> Stopped:
    """Stop at the first cut that ends a run of `agreeing` equal answers, one draw at each cut; computed exactly."""
    running: list[dict[str, float]] = [{} for _ in range(agreeing)]
    left, right, tokens, forced = 1.0, 0.0, 0.0, 0.0
    for cut in cuts:
        forced += left
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
    return Stopped(right + left * cuts[-1].right, tokens + left * cuts[-1].tokens, forced)


def change(stopped: Sequence[Stopped], problems: Sequence[Sequence[Cut]]) -> Estimate:
    """Change in accuracy against the whole thought; the problem is the unit."""
    return paired_bootstrap(np.array([at.right - cuts[-1].right for at, cuts in zip(stopped, problems, strict=True)]))


def main() -> None:
    """Print both tables."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    problems = read(Path(sys.argv[1]))
    print("Entropy of the answers in bits, and share of right answers, after each number of thinking tokens")
    wanted = [0, 1, 3, 5, 7, 11, 15]
    any_cuts = next(iter(problems.values()))
    table(
        ["problem", *[f"{any_cuts[at].tokens:,}" for at in wanted]],
        [
            [str(problem), *[f"{cuts[at].entropy:.2f} ({percent(cuts[at].right, digits=0)})" for at in wanted]]
            for problem, cuts in problems.items()
        ],
    )
    rules = {
        f"halt-cot:{bits:g}:{consecutive}": [halted(cuts, bits, consecutive=consecutive) for cuts in problems.values()]
        for consecutive in (1, 2)
        for bits in THRESHOLDS
    }
    rules |= {
        f"answer-convergence:{count}": [converged(cuts, count) for cuts in problems.values()] for count in AGREEING
    }
    whole = float(np.mean([cuts[-1].right for cuts in problems.values()]))
    most = any_cuts[-1].tokens
    print(f"\nAgainst the whole thought, right in {percent(whole)}; {len(problems)} problems, 95 % bootstrap over them")
    rows, results = [], dict[str, object]()
    for name, stopped in rules.items():
        moved = change(stopped, list(problems.values()))
        allowed = float(np.mean([at.tokens for at in stopped]))
        net = 1 - allowed / most - float(np.mean([at.forced for at in stopped])) / most
        rows.append([name, percent(1 - allowed / most), percent(net), percent(whole + moved.value), points(moved)])
        results[name] = {"thought_saved": 1 - allowed / most, "saved_at_most": net, "change": moved._asdict()}
    table(["rule", "thought skipped", "less the forced answers", "right", "change (points)"], rows)
    write(
        "halting",
        {
            "whole": whole,
            "rules": results,
            "problems": {
                str(problem): [[cut.tokens, cut.entropy, cut.right] for cut in cuts]
                for problem, cuts in problems.items()
            },
        },
    )


if __name__ == "__main__":
    main()
