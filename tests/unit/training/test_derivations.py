from itertools import islice
from random import Random

import pytest

from justenough.toy.families import questions, split_of
from training.data import MAX_STEPS, Recipe, conversation, train_question
from training.derivations import check, quick
from training.forgetting import near_miss
from training.tokenizer import CLOSE, build


def test_every_check_of_every_problem_ends_in_the_right_result() -> None:
    for question in islice(questions("train"), 900):
        assert quick(question).result == question.answer
        for step in range(2, MAX_STEPS + 1):
            thought = check(question, step)
            assert thought.result == question.answer, thought
            assert thought.text.endswith(f"={question.answer}")
            assert "\n" not in thought.text


def test_a_slip_changes_most_derivations() -> None:
    random = Random(0)
    wrong = [check(question, 2, slip=random).result != question.answer for question in islice(questions("train"), 300)]
    assert sum(wrong) > 100


def test_conversations_mask_wrong_steps_and_never_hold_a_held_out_problem() -> None:
    tokenizer, random = build(), Random(0)
    held_out = next(iter(questions("test")))
    with pytest.raises(ValueError, match="held out"):
        conversation(held_out, Recipe(), random, tokenizer)
    for _ in range(300):
        question = train_question(random)
        assert split_of(question) == "train"
        example = conversation(question, Recipe(), random, tokenizer)
        assert len(example.ids) == len(example.trained) < 640
        text = tokenizer.decode(example.ids, skip_special_tokens=False)
        assert CLOSE in text
        assert not example.trained[0]
        assert example.trained[-1]


def test_wrong_results_are_wrong() -> None:
    random = Random(0)
    assert all(near_miss(value, random) != value for value in range(200))
