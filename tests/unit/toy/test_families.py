import re
from itertools import islice
from random import Random

import pytest

from justenough.errors import ProblemRefused
from justenough.toy.families import FAMILIES, LEVELS, Question, draw, parse, questions, split_of


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("level", LEVELS)
def test_each_drawn_problem_is_parsed_and_has_the_right_answer(family: str, level: int) -> None:
    random = Random(1)
    for _ in range(200):
        question = draw(family, level, random)
        assert parse(question.text) == question
        assert question.answer == eval(question.text)
        assert question.answer >= 0


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("47 × 36", "47*36"),
        ("What is 47 times 36?", "47*36"),
        ("5821 mod 7", "5821%7"),
        ("41 plus 93 minus 28 =", "41+93-28"),
        ("7x12", "7*12"),
    ],
)
def test_common_notations_are_read(text: str, canonical: str) -> None:
    assert parse(text).text == canonical


@pytest.mark.parametrize(
    "text", ["", "hello", "3", "7*6", "123*456", "10-20", "99999%7", "50%1", "9" * 5000 + "*7", "Why is the sky blue?"]
)
def test_a_refusal_explains_what_the_model_reads(text: str) -> None:
    with pytest.raises(ProblemRefused) as refusal:
        parse(text)
    examples = re.findall(r"\d+(?:[*%+-]\d+)+", str(refusal.value).rpartition("it reads")[2])
    assert {parse(example).family for example in examples} == set(FAMILIES)


def test_splits_share_no_problem_even_with_operands_swapped() -> None:
    assert split_of(Question("product", 3, (47, 36))) == split_of(Question("product", 3, (36, 47)))
    held_out = {question.text for question in islice(questions("test"), 900)}
    calibration = {question.text for question in islice(questions("calibration"), 900)}
    assert len(held_out) == 900
    assert not held_out & calibration


def test_the_same_seed_gives_the_same_problems() -> None:
    first, again = (list(islice(questions("test", seed=3), 50)) for _ in range(2))
    other = list(islice(questions("test", seed=4), 50))
    assert first == again != other
