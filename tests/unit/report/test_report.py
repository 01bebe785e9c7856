"""The report: the same numbers in every form, the same bytes each time, and nothing that a model wrote is run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from justenough.budget import STOPPING, Recorded
from justenough.errors import InputError
from justenough.report import budget, payload, write_report
from justenough.report.budget import recorded
from justenough.report.data import contents
from justenough.report.sheets import all_sheets
from justenough.report.text import printable
from justenough.report.words import beaten_by, bits, percent, points, signed, verdict
from justenough.trace import Json
from tests.reports import CASES, EVIL, Case, calibrated, never_stops

DEMO: Mapping[str, Json] = {
    "live": {
        "problems": 40,
        "equal_to_replay": 39,
        "seconds_gated": 2.5,
        "seconds_full": 10.0,
        "tokens_gated": 4321,
        "tokens_full": 9876,
    },
    "siblings": {
        "overconfident": {
            "verdict": "weak",
            "advisable": False,
            "cohens_d": 1.18,
            "auroc": 0.771,
            "auroc_within_groups": 0.552,
            "problems": 300,
            "accuracy_first": 0.463,
        }
    },
}


class Page(HTMLParser):
    """Tags, attributes and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.raw: list[tuple[str, str]] = []
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._within = f"{tag} {dict(attrs).get('type', '')}".strip() if tag in ("script", "style") else ""

    def handle_data(self, data: str) -> None:
        if self._within:
            self.raw.append((self._within, data))
            self._within = ""

    def embedded(self, what: str) -> str:
        found = [text for within, text in self.raw if within == what]
        assert len(found) == 1
        return found[0]


@pytest.fixture(scope="module")
def case() -> Case:
    return calibrated(90)


def written(case: Case, path: Path, *, demo: Mapping[str, Json] | None = None) -> str:
    write_report(case.evaluation, case.traces, path, calibration=case.calibration, command="justenough report x", demo=demo)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def forms(case: Case, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("report")
    return {form: written(case, folder / f"r.{form}", demo=DEMO) for form in ("html", "md", "txt", "json")}


def test_all_forms_carry_the_same_numbers(case: Case, forms: dict[str, str]) -> None:
    made = case.evaluation
    whole = json.loads(forms["json"])
    assert {key: whole[key] for key in made.to_json()} == json.loads(json.dumps(made.to_json()))
    found = contents(made, case.traces, calibration=case.calibration, command="justenough report x", demo=DEMO)
    assert [row["n"] for row in whole["sizes"]] == [5, 10, 20]
    assert whole["sizes"][0]["saving"]["p5"] == found.sizes[0].saving.p5
    assert whole["reliability"][0]["right"]["value"] == found.reliability[0].share.value
    assert [row["threshold"] for row in whole["sweep"]] == [row.threshold for row in found.sweep]
    assert whole["roc"] == [list(point) for point in found.roc]
    assert made.gated.saving is not None
    said = [percent(made.gated.saving.value), points(made.gated.accuracy_change.value), percent(made.oracle_saving)]
    said += [percent(made.draws.saving.p5), signed(100 * made.draws.accuracy_change.p95), made.data_fingerprint]
    for figures in made.rules.values():
        assert figures.saving is not None
        said += [percent(figures.accuracy), percent(figures.saving.value), signed(100 * figures.accuracy_change.value)]
    said += [bits(value) for value in made.thresholds.values() if value is not None]
    said += [percent(row.saving.mean) for row in found.sizes] + [percent(row.share.value) for row in found.reliability]
    said += [percent(row.saving) for row in found.sweep]
    said += ["39 of 40", "75.0 %", "4,321", "0.552"]
    bare = {form: re.sub(r"[\\*]|<[^>]*>", "", text) for form, text in forms.items() if form != "json"}
    for form, text in bare.items():
        assert [value for value in said if value not in text] == [], form


def test_every_cell_of_every_sheet_is_in_text_and_markdown(case: Case, forms: dict[str, str]) -> None:
    found = contents(case.evaluation, case.traces, calibration=case.calibration, command="justenough report x", demo=DEMO)
    markdown = forms["md"].replace("\\", "")
    for sheet in all_sheets(found):
        for row in sheet.rows:
            assert "  ".join(printable(cell) for cell in row[:1]).rstrip() in forms["txt"]
            assert f"| {' | '.join(printable(cell) for cell in row)} |" in markdown


def test_same_input_same_bytes(case: Case, forms: dict[str, str], tmp_path: Path) -> None:
    for form, text in forms.items():
        assert written(case, tmp_path / f"again.{form}", demo=DEMO) == text


def test_page_holds_nothing_of_a_models_making_but_text(forms: dict[str, str]) -> None:
    page = Page(forms["html"])
    assert page.tags.count("script") == 2
    assert not {"img", "b", "i", "iframe", "object"} & set(page.tags) - {"b"}
    assert "b" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]
    links = [value for _, name, value in page.attributes if name in ("href", "src")]
    assert [value for value in links if not value.startswith("#")] == ["data:,"]
    data = json.loads(page.embedded("script application/json"))
    assert data["problems"][0]["problem"] == EVIL
    assert data["problems"][0]["steps"][0]["texts"] == [EVIL, "<b>"]


def test_policy_allows_this_script_and_style_only(forms: dict[str, str]) -> None:
    page = Page(forms["html"])
    policy = next(value for tag, name, value in page.attributes if (tag, name) == ("meta", "content"))
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.embedded(kind).encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_no_address_in_the_page(forms: dict[str, str]) -> None:
    # The namespace of SVG is a name, not a place.
    text = forms["html"].replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?:|wss?:|@import|url\(|fetch\(|XMLHttpRequest|innerHTML|eval\(", text) == []


def test_text_steers_no_terminal_and_breaks_no_table(forms: dict[str, str]) -> None:
    assert "\x1b" not in forms["txt"] + forms["md"]
    bars = 0
    hostile_rows = 0
    for line in forms["md"].splitlines():
        if line.startswith("| ---"):
            bars = line.count("|")
        elif line.startswith("| ") and "onerror" in line:
            assert "\\<img" in line
            assert len(re.findall(r"(?<!\\)\|", line)) == bars
            hostile_rows += 1
    assert hostile_rows >= 2


def test_curves_agree_with_the_figures(case: Case) -> None:
    found = contents(case.evaluation, case.traces, calibration=case.calibration, command="", demo={})
    evidence = case.evaluation.separation
    curve = np.array([(0.0, 0.0), *found.roc])
    area = float(np.trapezoid(curve[:, 1], curve[:, 0]))
    assert evidence.auroc is not None
    assert area == pytest.approx(evidence.auroc.value)
    assert sum(entry.right for entry in found.histogram) == evidence.right
    assert sum(entry.wrong for entry in found.histogram) == evidence.wrong
    assert sum(entry.share.n for entry in found.reliability) == evidence.right + evidence.wrong
    assert sum(entry.share.value * entry.share.n for entry in found.reliability) == pytest.approx(evidence.right)
    stopped = [row.stopped for row in found.sweep]
    assert stopped == sorted(stopped)
    assert stopped[-1] == 1
    weights = [row.problems / case.evaluation.problems for row in found.families]
    gated = sum(weight * row.gated for weight, row in zip(weights, found.families, strict=True))
    assert gated == pytest.approx(case.evaluation.gated.accuracy)


@pytest.mark.parametrize("name", CASES)
def test_unusual_evaluations_have_a_page(name: str, tmp_path: Path) -> None:
    case = CASES[name]()
    for form in ("html", "md", "txt"):
        text = written(case, tmp_path / f"r.{form}")
        assert "NaN" not in text.replace("isNaN", "")
        assert "None" not in text
    sentence = verdict(case.evaluation)
    assert sentence.endswith(".")
    assert sentence.count(". ") == 0


def test_a_baseline_that_does_better_is_named(tmp_path: Path) -> None:
    case = never_stops()
    assert beaten_by(case.evaluation) == {}
    made = calibrated(40).made
    assert made.gated.saving is not None
    better = replace(made.rules["always-one-step"], accuracy=made.gated.accuracy, saving=made.gated.saving)
    beaten = replace(made, rules={**made.rules, "always-one-step": better})
    assert "always-one-step" in beaten_by(beaten)


def test_what_has_no_room_is_left_out(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    found = contents(case.evaluation, case.traces, calibration=case.calibration, command="", demo={})
    monkeypatch.setattr(payload, "ROOM", 3000)
    monkeypatch.setattr(payload, "PROBLEMS", 30)
    rows = cast("list[dict[str, Json]]", payload.problems(found))
    assert len(rows) == 30
    assert rows[0]["steps"] is not None
    assert rows[-1]["steps"] is None


def test_refusals(case: Case, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"report\.pdf"):
        written(case, tmp_path / "report.pdf")
    with pytest.raises(InputError, match="not the traces"):
        written(case._replace(traces=case.traces[1:]), tmp_path / "r.html")
    with pytest.raises(InputError, match="belong together"):
        written(case._replace(calibration=None), tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []


def test_the_budget_stands_in_every_form_and_adds_up(case: Case, forms: dict[str, str]) -> None:
    found = contents(case.evaluation, case.traces, calibration=case.calibration, command="", demo={})
    made = found.budget
    assert made is not None
    assert json.loads(forms["json"])["budget"]["rows"] == json.loads(json.dumps([r.to_json() for r in made.sweep.rows]))
    gate = made.sweep.at(STOPPING, int(case.evaluation.gated.tokens))
    assert gate is not None
    assert gate.accuracy == pytest.approx(case.evaluation.gated.accuracy)
    for row in made.sweep.rows:
        assert row.spent <= row.total
        for shares in row.groups.values():
            assert sum(share.problems for share in shares.values()) == case.evaluation.problems
            assert sum(share.cost * share.problems for share in shares.values()) == pytest.approx(row.spent)
    assert len(made.sweep.rows[0].groups["entropy of step 1"]) == 5
    held = recorded(found.table, model="")
    read = Recorded.of(case.traces)
    assert held.lengths == read.lengths
    assert held.limits == read.limits
    assert np.array_equal(held.cost("tokens"), read.cost("tokens"))
    bare = re.sub(r"<[^>]*>", "", forms["html"])
    for name, estimate in made.sweep.overall.items():
        if name != "uniform":
            assert signed(100 * estimate.value) in bare


def test_without_a_further_step_there_is_no_budget(tmp_path: Path) -> None:
    assert "The same tokens" not in written(CASES["one step"](), tmp_path / "r.html")


def test_many_problems_are_sampled(monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    monkeypatch.setattr(budget, "MOST", 40)
    made = contents(case.evaluation, case.traces, calibration=case.calibration, command="", demo={}).budget
    assert made is not None
    assert (made.sweep.problems, made.of) == (40, case.evaluation.problems)


def test_fifths_hold_ties_and_what_has_no_signal() -> None:
    values = np.array([0.0, 0.0, 0.0, 0.5, 0.5, 1.0, np.nan])
    named = budget.fifths(values)
    assert named[-1] == "no signal"
    assert len({named[at] for at in range(3)}) == 1
    assert budget.sorted_groups(["no signal", "10 to 20", "9 to 10"])[-1] == "no signal"
    assert set(budget.fifths(np.zeros(30))) == {"0.000 to 0.000"}
