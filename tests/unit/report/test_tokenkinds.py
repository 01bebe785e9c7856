"""Kinds of tokens, and their shares of the entropy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from justenough.report.tokenkinds import kind_of, token_kinds
from justenough.trace import Trace
from tests.builders import step, trace


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("12", "number"),
        (" 3.5", "number"),
        ("x2", "number"),
        (" +", "operator"),
        ("**", "operator"),
        (" the", "word"),
        ("So", "word"),
        ("ing", "end of a word"),
        ("né", "end of a word"),
        (".", "sign"),
        (" (", "sign"),
        ("\n\n", "line break"),
        ("", "line break"),
    ],
)
def test_the_kind_follows_from_the_text(text: str, kind: str) -> None:
    assert kind_of(text) == kind


def texts(*pairs: tuple[str, float], correct: bool, id: str, group: str | None = None) -> Trace:
    entropies = tuple(bits for _, bits in pairs)
    whole = replace(step(1.0, correct=correct), entropies=entropies, token_texts=tuple(text for text, _ in pairs))
    return trace(whole, id=id, group=group)


def test_shares_and_means_by_hand() -> None:
    traces = [
        texts(("The", 1.0), (" 4", 0.0), correct=True, id="a"),
        texts(("The", 2.0), (" 5", 1.0), (" 6", 3.0), correct=False, id="b"),
        # Without texts a step belongs to no kind.
        trace(step(9.0), id="c"),
    ]
    number, word = token_kinds(traces)
    assert (number.name, number.tokens, number.of_tokens) == ("number", 3, 0.6)
    assert (number.of_entropy, number.right, number.wrong) == (4 / 7, 0.0, 2.0)
    assert (word.name, word.of_entropy, word.right, word.wrong) == ("word", 3 / 7, 1.0, 2.0)


def test_without_texts_there_are_no_kinds() -> None:
    assert token_kinds([trace(step(1.0), id="a")]) == []


def test_the_area_is_that_of_the_kind_alone() -> None:
    # Words say nothing; numbers are certain in all right answers.
    traces = [
        texts((" a", 1.0), (" 4", 0.1 if right else 2.0), correct=right, id=f"{at}{right}")
        for at in range(12)
        for right in (True, False)
    ]
    number, word = token_kinds(traces)
    assert number.auroc is not None
    assert number.auroc.value == 1.0
    assert word.auroc is not None
    assert word.auroc.value == 0.5


def test_within_groups_only_answers_of_one_group_are_compared() -> None:
    # Hard problems have more bits and are mostly wrong; within a level, bits say nothing.
    traces = [
        texts(
            (" 4", 2.0 if hard else 0.1), correct=(at < 3) is hard, id=f"{at}{hard}", group="hard" if hard else "easy"
        )
        for at in range(12)
        for hard in (True, False)
    ]
    (number,) = token_kinds(traces)
    assert number.auroc is not None
    assert number.within is not None
    assert (number.auroc.value, number.within.value) == (0.75, 0.5)
    assert token_kinds([replace(one, group=None) for one in traces])[0].within is None
