"""Training conversations: thoughts of one to four steps, closed after any of them, in both shapes.

*Streaming*: one generation has several steps, each a paragraph. *Sequential*: each turn has one step, and a request
asks for the next check. The loss is masked on the prompt, on wrong steps, and on a closing tag that the gate sets
instead of the model: without a gate the model goes on to the fourth step. Answers after wrong steps are trained too,
so the model answers from its own thought.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from tokenizers import Tokenizer

from justenough.toy.families import FAMILIES, LEVELS, Question, draw, split_of
from training.derivations import Thought, check, quick
from training.forgetting import careless, near_miss
from training.tokenizer import ASSISTANT, CLOSE, END, THINK, USER

MAX_STEPS: Final = 4
ONE_STEP: Final = "\nOne step."
AGAIN: Final = "Check again."


@dataclass(frozen=True, slots=True)
class Recipe:
    """How conversations are drawn."""

    lengths: tuple[float, ...] = (0.66, 0.20, 0.08, 0.06)  # share of conversations of one to four steps
    streaming: float = 0.5  # share in the streaming shape
    wrong_first: float = 0.6  # share of wrong first steps in conversations of several steps
    wrong_check: float = 0.1  # share of wrong checks before the last one
    wrong_only: float = 0.1  # share of one-step conversations with a wrong step, to train their answer
    forgetful: float = 0.0  # share of trained first steps that forget or guess (a confidently wrong model)
    first: bool = True  # whether first steps are trained at all


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids, and for each whether it is a target of the loss; both have shape (T,)."""

    ids: list[int]
    trained: list[bool]


def conversation(question: Question, recipe: Recipe, random: Random, tokenizer: Tokenizer) -> Example:
    """Draw one conversation about a question."""
    assert_trainable(question)
    count = random.choices(range(1, MAX_STEPS + 1), weights=recipe.lengths)[0]
    thoughts: list[tuple[Thought, bool]] = []
    for step in range(1, count + 1):
        thoughts.append(_thought(question, step, last=step == count, recipe=recipe, random=random))
    pieces: list[tuple[str, bool]] = []
    if random.random() < recipe.streaming:
        pieces += [(f"{USER}{question.text}{END}{ASSISTANT}", False), (THINK, True)]
        pieces += [(f"{thought.text}\n\n", trained) for thought, trained in thoughts]
        pieces += [(CLOSE, count == MAX_STEPS), (f"Answer: {thoughts[-1][0].result}{END}", True)]
    else:
        for turn, (thought, trained) in enumerate(thoughts):
            request = AGAIN if turn else f"{question.text}{ONE_STEP}"
            pieces += [(f"{USER}{request}{END}{ASSISTANT}", False), (THINK, True), (f"{thought.text}\n\n", trained)]
            pieces += [(CLOSE, True), (f"Answer: {thought.result}{END}", True)]
    ids: list[int] = []
    mask: list[bool] = []
    for text, trained in pieces:
        piece = tokenizer.encode(text).ids
        ids += piece
        mask += [trained] * len(piece)
    return Example(ids, mask)


def train_question(random: Random) -> Question:
    """Draw a problem of the training split, with equal chances for families and levels."""
    while True:
        question = draw(random.choice(FAMILIES), random.choice(LEVELS), random)
        if split_of(question) == "train":
            return question


def assert_trainable(question: Question) -> None:
    """Refuse a held-out problem; raises `ValueError`."""
    if split_of(question) != "train":
        raise ValueError(f"{question.text} is held out")


def _thought(question: Question, step: int, *, last: bool, recipe: Recipe, random: Random) -> tuple[Thought, bool]:
    if step == 1:
        if recipe.forgetful and random.random() < recipe.forgetful:
            return careless(question, random), recipe.first
        if random.random() < (recipe.wrong_only if last else recipe.wrong_first):
            return quick(question, result=near_miss(question.answer, random)), False
        return quick(question), recipe.first
    if not last and random.random() < recipe.wrong_check:
        thought = check(question, step, slip=random)
        return thought, thought.result == question.answer
    return check(question, step), True
