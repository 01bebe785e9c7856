"""The templates: the meanings of the column heads, and sentences in one line."""

from __future__ import annotations

import pytest

from justenough.report.budgetsheets import budget_claim, budget_curve
from justenough.report.data import Contents
from justenough.report.demosheets import siblings
from justenough.report.rulesheets import LAYERS, MONEY, MORE, RULES, TIME
from justenough.report.sheets import sizes, sweep
from justenough.report.templates import environment, meaning, meanings, printable, sentences


@pytest.mark.parametrize("head", [*RULES, *MORE, *MONEY, *TIME, *LAYERS])
def test_each_column_of_the_rules_has_a_meaning(head: str) -> None:
    assert meaning(head) is not None


def test_a_unit_after_a_comma_is_ignored() -> None:
    assert meaning("τ, bits") == meanings()["τ"]
    assert meaning("change, points") == meanings()["change"]


def test_an_unknown_head_has_no_meaning() -> None:
    assert meaning("problems") is None
    assert meaning("") is None


def test_meanings_are_sentences() -> None:
    for text in meanings().values():
        assert text[0].isupper()
        assert text.endswith(".")


OTHERS = ("feature", "weight", "method", "outcome", "gate right", "all steps right")


def test_each_meaning_belongs_to_a_table(contents: Contents) -> None:
    budget = contents.budget
    assert budget is not None
    tables = [sweep(contents), sizes(contents), siblings(contents), budget_claim(budget), budget_curve(budget)]
    heads = {head for sheet in tables if sheet is not None for head in sheet.header}
    heads |= {
        *RULES,
        *MORE,
        *MONEY,
        *TIME,
        *LAYERS,
        "feature",
        "weight",
        "method",
        "outcome",
        "gate right",
        "all steps right",
    }
    assert set(meanings()) - heads - {head.partition(", ")[0] for head in heads} == set()


def test_sentences_are_one_line(contents: Contents) -> None:
    text = sentences("measured", contents)
    assert "\n" not in text
    assert "  " not in text


@pytest.mark.parametrize(
    ("text", "expected"), [("a\nb", "a b"), ("a\tb", "a b"), ("\x1b[31m", "�[31m"), ("ü – 1", "ü – 1"), ("\u202e", "�")]
)
def test_control_characters_are_replaced(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_only_the_page_is_escaped_as_html() -> None:
    escapes = environment().autoescape
    assert callable(escapes)
    assert [escapes(name) for name in ("report.html", "report.txt", "report.md", "sentences.txt")] == [
        True,
        False,
        False,
        False,
    ]
