"""Results of DeepConf."""

from __future__ import annotations

from pathlib import Path

from justenough.trace import Json
from tests.unit.importing.samples import deepconf_result, loaded


def test_the_traces_of_a_question_are_runs_of_one_problem(tmp_path: Path) -> None:
    traces, bad = loaded(tmp_path / "in", "auto", deepconf_result())
    assert [(trace.id, trace.seed, trace.model) for trace in traces] == [("1", 0, "m-1"), ("1", 1, "m-1")]
    assert [trace.steps[0].correct for trace in traces] == [True, False]
    step = traces[0].steps[0]
    # The confidences are 3 and 5: their mean is 4, and more confidence is less uncertainty.
    assert step.bits(traces[0].signal) == -4.0
    assert (step.confidences, step.tokens, step.answer) == ((3.0, 5.0), 2, "4")
    assert (traces[0].signal.kind, traces[0].target) == ("minus-mean-confidence", "4")
    assert bad == []


def test_the_confidences_of_groups_are_not_those_of_tokens(tmp_path: Path) -> None:
    trace: Json = {"question_id": 2, "text": "4", "num_tokens": 9, "group_confs": [3.0], "model": "m-1"}
    traces, [line] = loaded(tmp_path / "in", "auto", trace)
    assert (traces, "has no confs" in line.reason) == ([], True)


def test_one_trace_on_each_line(tmp_path: Path) -> None:
    trace: Json = {"question_id": 2, "seed": 5, "text": "4", "confs": [1.0, 2.0], "model": "m-1"}
    [only], bad = loaded(tmp_path / "in", "auto", trace)
    assert (only.id, only.seed, only.tokens, bad) == ("2", 5, 2, [])
