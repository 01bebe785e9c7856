"""The data for the script of the page."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from justenough.report import payload
from justenough.report.data import Contents
from justenough.report.words import bits
from justenough.trace import Json
from tests.reports import Case, contents_of, with_decider


def test_what_has_no_room_is_left_out(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    result = contents_of(case)
    monkeypatch.setattr(payload, "ROOM", 3000)
    monkeypatch.setattr(payload, "PROBLEMS", 30)
    rows = cast("list[dict[str, Json]]", payload.problems(result))
    assert len(rows) == 30
    assert rows[0]["steps"] is not None
    assert rows[-1]["steps"] is None


def test_rules_without_a_threshold_are_not_drawn(contents: Contents) -> None:
    evaluation = contents.evaluation
    changed = replace(
        evaluation,
        thresholds={**evaluation.thresholds, "risk": None},
        rules={**evaluation.rules, "entropy-risk": replace(evaluation.gated, stopped=0.0)},
    )
    rows = cast("list[dict[str, Json]]", payload.payload(replace(contents, evaluation=changed))["rules"])
    assert [row["name"] for row in rows] == [
        name for name in changed.rules if name not in ("entropy-risk", "entropy-net")
    ]


def test_rules_have_the_interval_of_the_verdict(contents: Contents) -> None:
    rows = cast("list[dict[str, Json]]", payload.payload(contents)["rules"])
    for row in rows:
        change = contents.evaluation.rules[str(row["name"])].accuracy_change
        assert row["change"] == [change.value, change.low, change.high]


def test_kinds_of_rules(contents: Contents) -> None:
    rows = cast("list[dict[str, Json]]", payload.payload(contents)["rules"])
    kinds = {str(row["name"]): row["kind"] for row in rows}
    assert kinds["entropy-mean"] == "gate"
    assert kinds["oracle"] == "oracle"
    assert kinds["always-one-step"] == "baseline"


def test_the_columns_of_the_table_are_sent_whole(contents: Contents) -> None:
    sent = payload.payload(contents)
    table = contents.table
    assert len(cast("list[Json]", sent["bits"])) == len(table)
    correct = cast("list[str]", sent["correct"])
    assert [[cell == "1" for cell in row] for row in correct] == table.correct.tolist()
    assert sent["spent"] == table.spent.tolist()
    assert sent["generated"] is None


def test_tokens_of_each_step_are_sent_for_a_minimum_only(contents: Contents) -> None:
    settings = replace(contents.settings, min_tokens=3)
    assert payload.payload(replace(contents, settings=settings))["generated"] == contents.table.generated.tolist()


def test_each_step_that_the_gate_runs_has_a_reason(contents: Contents) -> None:
    for row in cast("list[dict[str, Json]]", payload.problems(contents)):
        steps = cast("list[dict[str, Json]]", row["steps"])
        stop = cast("int", row["stop"])
        reasons = [str(step["why"]) for step in steps]
        assert all(reasons[:stop])
        assert not any(reasons[stop:])
        assert all(reason.endswith(("continue.", "stop here.", "answer.")) for reason in reasons[:stop])


def test_a_reason_compares_the_entropy_with_the_threshold(contents: Contents) -> None:
    threshold = contents.settings.threshold
    for row in cast("list[dict[str, Json]]", payload.problems(contents)):
        step = cast("list[dict[str, Json]]", row["steps"])[0]
        measured = cast("float", step["bits"])
        assert threshold is not None
        sign = "≤" if measured <= threshold else ">"
        assert str(step["why"]).startswith(f"{bits(measured)} {sign} τ {bits(threshold)} bits; ")


def test_a_decider_is_shown_by_its_scores() -> None:
    """The page decides by the same scores as the library, and stops where the outlook is hopeless."""
    contents = contents_of(with_decider())
    table, settings = contents.table, contents.settings
    sent = payload.payload(contents)
    assert (sent["unit"], sent["quantity"]) == ("decider score", "decider score")
    scores = np.array(cast("list[list[float | None]]", sent["bits"]), dtype=np.float64)
    hopeless = np.array([[flag == "1" for flag in row] for row in cast("list[str]", sent["hopeless"])])
    np.testing.assert_array_equal(scores, table.scores(settings.decider))
    assert settings.threshold is not None
    stops = np.isfinite(scores) & ((scores <= settings.threshold) | hopeless)
    first = np.where(stops.any(axis=1), stops.argmax(axis=1), table.steps - 1)
    assert first.tolist() == table.stops(settings).tolist()
    assert set(first.tolist()) == {0, 1, 2}
    assert 0 < hopeless.mean() < 1
    assert [row["name"] for row in cast("list[dict[str, Json]]", sent["methods"])] == ["decider"]
    rules = {str(row["name"]): row["kind"] for row in cast("list[dict[str, Json]]", sent["rules"])}
    assert rules["decider"] == "gate"
    for number, row in enumerate(cast("list[dict[str, Json]]", payload.problems(contents))):
        assert row["stop"] == first[number] + 1
        steps = cast("list[dict[str, Json]]", row["steps"])
        assert [step["bits"] for step in steps] == pytest.approx(scores[number][: len(steps)].tolist())
        assert "decider score" in str(steps[0]["why"])
