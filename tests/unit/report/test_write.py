"""Reports in all forms: the same numbers, the same bytes each time, errors before a file is written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from justenough.errors import InputError
from justenough.report.advice import advice
from justenough.report.words import bits, change
from justenough.report.write import FORMS
from justenough.stats.text import percent, signed
from tests.reports import CASES, DEMO, Case, contents_of, written


def test_all_forms_carry_the_same_numbers(case: Case, forms: dict[str, str]) -> None:
    evaluation = case.evaluation
    whole = json.loads(forms["json"])
    assert {key: whole[key] for key in evaluation.to_json()} == json.loads(json.dumps(evaluation.to_json()))
    result = contents_of(case, demo=DEMO)
    assert [row["n"] for row in whole["sizes"]] == [5, 10, 20]
    assert whole["sizes"][0]["saving"]["p5"] == result.sizes[0].saving.p5
    assert whole["reliability"][0]["right"]["value"] == result.reliability[0].share.value
    assert [row["threshold"] for row in whole["sweep"]] == [row.threshold for row in result.sweep]
    assert whole["roc"] == [list(point) for point in result.roc]
    assert evaluation.gated.saving is not None
    expected = [
        percent(evaluation.gated.saving.value),
        change(evaluation.gated.accuracy_change).partition(" [")[0],
        percent(evaluation.oracle_saving),
    ]
    expected += [
        percent(evaluation.draws.saving.p5),
        signed(100 * evaluation.draws.accuracy_change.p95),
        evaluation.data_fingerprint,
    ]
    for figures in evaluation.rules.values():
        assert figures.saving is not None
        expected += [
            percent(figures.accuracy),
            percent(figures.saving.value),
            signed(100 * figures.accuracy_change.value),
        ]
    expected += [bits(value) for value in evaluation.thresholds.values() if value is not None]
    expected += [percent(row.saving.mean) for row in result.sizes] + [
        percent(row.share.value) for row in result.reliability
    ]
    expected += [percent(row.saving) for row in result.sweep]
    expected += ["39 of 40", "75.0 %", "4,321", "0.552"]
    bare = {form: re.sub(r"[\\*]|<[^>]*>", "", text) for form, text in forms.items() if form != "json"}
    for form, text in bare.items():
        assert [value for value in expected if value not in text] == [], form


def test_same_input_same_bytes(case: Case, forms: dict[str, str], tmp_path: Path) -> None:
    for form, text in forms.items():
        assert written(case, tmp_path / f"again.{form}", demo=DEMO) == text


@pytest.mark.parametrize("name", CASES)
def test_unusual_evaluations_have_a_page(name: str) -> None:
    contents = contents_of(CASES[name]())
    for form in (".html", ".md", ".txt"):
        text = FORMS[form](contents)
        assert "NaN" not in text.replace("isNaN", "")
        assert "None" not in text
    sentence = advice(contents).sentence
    assert sentence.endswith(".")
    assert sentence.count(". ") == 0


def test_refusals(case: Case, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"report\.pdf"):
        written(case, tmp_path / "report.pdf")
    with pytest.raises(InputError, match="not the traces"):
        written(case._replace(traces=case.traces[1:]), tmp_path / "r.html")
    with pytest.raises(InputError, match="belong together"):
        written(case._replace(calibration=None), tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []
