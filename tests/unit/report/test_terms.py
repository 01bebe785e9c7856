"""The meanings of the column heads."""

from __future__ import annotations

import pytest

from justenough.report.budgetsheets import budget_claim, budget_curve
from justenough.report.data import Contents
from justenough.report.demosheets import siblings
from justenough.report.rulesheets import MONEY, MORE, RULES, TIME
from justenough.report.sheets import sizes, sweep
from justenough.report.terms import MEANINGS, legend, meaning


@pytest.mark.parametrize("head", [*RULES, *MORE, *MONEY, *TIME])
def test_each_column_of_the_rules_has_a_meaning(head: str) -> None:
    assert meaning(head) is not None


def test_a_unit_after_a_comma_is_ignored() -> None:
    assert meaning("τ, bits") == MEANINGS["τ"]
    assert meaning("change, points") == MEANINGS["change"]


def test_an_unknown_head_has_no_meaning() -> None:
    assert meaning("problems") is None
    assert meaning("") is None


def test_meanings_are_sentences() -> None:
    for text in MEANINGS.values():
        assert text[0].isupper()
        assert text.endswith(".")


def test_the_legend_leaves_out_heads_without_a_meaning() -> None:
    assert legend(["harm", "problems", "τ, bits"]) == [("harm", MEANINGS["harm"]), ("τ, bits", MEANINGS["τ"])]


def test_each_meaning_belongs_to_a_table(contents: Contents) -> None:
    tables = [sweep(contents), sizes(contents), siblings(contents), budget_claim(contents), budget_curve(contents)]
    heads = {head for sheet in tables if sheet is not None for head in sheet.header}
    heads |= {*RULES, *MORE, *MONEY, *TIME, "method", "outcome", "gate right", "all steps right"}
    assert set(MEANINGS) - heads - {head.partition(", ")[0] for head in heads} == set()
