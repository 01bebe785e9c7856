"""Kinds of tokens as a table, as a picture and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace

from justenough.report.data import Contents
from justenough.report.tokenkinds import token_kinds
from justenough.report.tokensheet import tokens, tokens_picture
from justenough.report.write import FORMS
from tests.unit.report.test_tokenkinds import texts


def test_a_report_without_texts_has_no_such_table(contents: Contents) -> None:
    assert tokens(replace(contents, token_kinds=())) is None


def test_the_table_the_picture_and_the_json_have_each_kind(contents: Contents) -> None:
    traces = [texts(("The", 1.0), (" 4", 0.0), correct=True, id="a"), texts(("+", 1.0), correct=False, id="b")]
    shown = replace(contents, token_kinds=tuple(token_kinds(traces)))
    sheet = tokens(shown)
    assert sheet is not None
    names = [row[0] for row in sheet.rows]
    assert names == ["number", "operator", "word"]
    assert sheet.rows[0][4:6] == ("0.000", "–")
    picture = tokens_picture(shown)
    assert picture.count("<rect") == 1 + 3
    assert all(f">{name}<" in picture for name in names)
    assert [kind["name"] for kind in json.loads(FORMS[".json"](shown))["token_kinds"]] == names


def test_the_kinds_are_those_of_the_first_steps(contents: Contents) -> None:
    assert list(contents.token_kinds) == token_kinds(contents.traces)
