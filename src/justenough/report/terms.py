"""What the column heads of the tables mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

MEANINGS: Final[Mapping[str, str]] = {
    "rule": "Name of the rule that decides when to stop.",
    "accuracy": "Share of all problems with a right answer where the rule stops.",
    "change": "Accuracy minus the accuracy of all steps, in percentage points, with a 95 % interval.",
    "saving": "Share of the tokens of all steps that the rule does not use, with a 95 % interval.",
    "tokens": "Tokens that the rule uses on all problems together.",
    "stopped": "Share of problems that stop before the last step.",
    "harm": "Share of problems that stop at a wrong answer although the last step is right.",
    "rescue": "Share of problems that stop at a right answer although the last step is wrong.",
    "verdict": "Non-inferior: the 95 % interval of the change excludes a loss larger than the margin. Inferior: all of"
    " the interval is such a loss. Inconclusive: neither.",
    "saving vs step 1": "Saving compared with running only step 1; negative if the rule uses more tokens.",
    "saving vs last step": "Saving compared with running only the last step; negative if the rule uses more tokens.",
    "share of oracle": "The saving divided by the saving of an oracle that knows which answers are right.",
    "unanswered": "Share of problems without an answer where the rule stops; they count as wrong.",
    "McNemar p": "Exact McNemar test: p-value for equal accuracy of the rule and of all steps.",
    "cost": "Money for all problems together, from the given prices.",
    "money saved": "Share of the money of all steps that the rule does not spend.",
    "money vs last step": "Money saved compared with running only the last step.",
    "time saved": "Share of the seconds of all steps that the rule does not use.",
    "τ": "Threshold: the gate stops if the signal is at or below it.",
    "method": "Method that computes the threshold from labelled examples.",
    "outcome": "Whether the method gives a threshold, or why it does not.",
    "labels": "Number of labelled examples on which the threshold is fitted.",
    "no threshold": "Share of draws in which the method gives no threshold; such a gate never stops.",
    "policy": "Way to divide a total of tokens between the problems.",
    "step 1 right": "Share of problems with a right answer after step 1.",
    "gate right": "Share of problems with a right answer where the gate stops.",
    "all steps right": "Share of problems with a right answer after the last step.",
    "d": "Cohen's d: difference of the mean signal of wrong and right answers, in standard deviations.",
    "AUROC": "Probability that a wrong answer has a higher signal than a right one; 0.5 is chance.",
    "within groups": "AUROC over pairs of answers from the same group of problems.",
    "gate advisable": "Whether the diagnosis allows a gate for this model.",
    "steps per problem": "Mean number of steps that a problem gets.",
    "needed before the run": "What the policy must know before it starts.",
    "tokens spent": "Tokens that the policy really uses; it may leave a part of the total unused.",
}


def meaning(head: str) -> str | None:
    """The meaning of a column head; a unit after a comma is ignored."""
    return MEANINGS.get(head) or MEANINGS.get(head.partition(", ")[0])


def legend(heads: Sequence[str]) -> list[tuple[str, str]]:
    """Each head that has a meaning, with it."""
    return [(head, text) for head in heads if (text := meaning(head)) is not None]
