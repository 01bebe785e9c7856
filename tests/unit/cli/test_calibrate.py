"""`justenough calibrate`: the file, the text, refusals, labels and warnings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from justenough.calibration.calibration import load_calibration
from justenough.calibration.thresholds import METHODS
from justenough.trace import Trace
from justenough.trace.files import read_traces, write_traces
from tests.builders import population, step, trace
from tests.unit.calibration.test_decider import runs
from tests.unit.cli.invoke import run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "calibration.json"


def test_the_file_is_the_object_that_json_prints(traces: Path, out: Path) -> None:
    result = run("calibrate", traces, "-n", 20, "--seed", 3, "--out", out, "--json")
    assert result.code == 0
    assert json.loads(out.read_text()) == result.json
    fit = result.json
    assert (fit["n"], fit["seed"], fit["method"], len(fit["fitted_on"])) == (20, 3, "mean", 20)


def test_the_text_shows_every_method_and_the_chosen_threshold(traces: Path, out: Path) -> None:
    result = run("calibrate", traces, "--out", out)
    assert result.code == 0
    assert "warning: the threshold carries no guarantee" in result.err
    lines = result.out.splitlines()
    assert lines[0].split() == ["threshold", "bits", "outcome"]
    assert [line.split()[0] for line in lines[2 : 2 + len(METHODS)]] == list(METHODS)
    fit = load_calibration(out)
    assert f"{out}: mean, stop at or below {fit.threshold:.4f} bits" in result.out
    assert f"{fit.n} examples, {100 * fit.n_right / fit.n:.1f} % right; d " in result.out


def test_the_seed_chooses_the_examples(traces: Path, tmp_path: Path) -> None:
    sample = []
    for number, seed in enumerate((1, 1, 2)):
        path = tmp_path / f"{number}.json"
        assert run("calibrate", traces, "-n", 20, "--seed", seed, "--out", path).code == 0
        sample.append(load_calibration(path).fitted_on)
    assert sample[0] == sample[1] != sample[2]


def test_a_signal_that_does_not_separate_is_refused_unless_forced(blind: Path, out: Path) -> None:
    refused = run("calibrate", blind, "--out", out)
    assert refused.code == 1
    assert "gating is not advisable" in refused.error
    assert not out.exists()
    forced = run("calibrate", blind, "--out", out, "--force")
    assert forced.code == 0
    assert "warning: forced: gating is not advisable" in forced.err
    assert load_calibration(out).verdict == "absent"


def test_nothing_certified_is_a_no(traces: Path, out: Path) -> None:
    refused = run("calibrate", traces, "--threshold", "risk", "--max-harm", 0.001, "--out", out)
    assert refused.code == 1
    assert "2845 more labels" in refused.error  # (1 - .001)^2995 ≤ .05, and 150 are there
    certified = run("calibrate", traces, "--threshold", "risk", "--max-harm", 0.2, "--out", out)
    assert certified.code == 0
    assert "with 95% confidence" in certified.out
    assert "at most 20.00%" in certified.out


def test_net_and_confidence_reach_the_certificate(traces: Path, out: Path) -> None:
    result = run("calibrate", traces, "--threshold", "net", "--max-harm", 0.2, "--confidence", 0.8, "--out", out)
    assert result.code == 0
    guarantee = load_calibration(out).guarantee
    assert guarantee is not None
    assert guarantee.startswith("with 80% confidence")
    assert "20.00%" in guarantee
    assert guarantee in result.out
    for option, value in (("--max-harm", 0), ("--confidence", 1)):
        bad = run("calibrate", traces, "--threshold", "net", option, value, "--out", out)
        assert bad.code == 2
        assert "between 0 and 1" in bad.error


def test_a_certificate_is_for_the_steps_that_decide(traces: Path, out: Path) -> None:
    result = run("calibrate", traces, "--threshold", "risk", "--max-harm", 0.2, "--decide", "every", "--out", out)
    assert result.code == 0
    created = load_calibration(out)
    assert (created.decide, created.max_harm, created.confidence) == ("every", 0.2, 0.95)
    assert created.guarantee is not None


def test_the_level_reaches_the_other_thresholds(traces: Path, out: Path) -> None:
    result = run("calibrate", traces, "--threshold", "mean", "--max-harm", 0.2, "--confidence", 0.9, "--out", out)
    created = load_calibration(out)
    assert (
        run("calibrate", traces, "--threshold", "risk", "--max-harm", 0.2, "--confidence", 0.9, "--out", out).code == 0
    )
    assert created.thresholds["risk"] == load_calibration(out).threshold is not None
    assert "risk and net at harm 20.0 %, confidence 90.0 %" in result.out


def test_a_threshold_of_step_1_is_forced_on_every_step(traces: Path, out: Path) -> None:
    result = run("calibrate", traces, "--decide", "every", "--out", out)
    assert result.code == 1
    assert "carries no promise for later steps" in result.error
    assert not out.exists()


def test_options_of_the_gate_are_stored(traces: Path, out: Path) -> None:
    options = ("--decide", "every", "--force", "--min-tokens", 64, "--patience", 2, "--pooling", "maximum")
    assert run("calibrate", traces, *options, "--out", out).code == 0
    fit = load_calibration(out)
    assert (fit.decide, fit.min_tokens, fit.patience, fit.signal.pooling) == ("every", 64, 2, "maximum")
    result = run("calibrate", traces, "--pooling", "magic", "--out", out)
    assert result.code == 2
    assert "unknown pooling 'magic'" in result.error


def test_too_few_examples_is_a_no(traces: Path, out: Path) -> None:
    result = run("calibrate", traces, "-n", 151, "--out", out)
    assert result.code == 1
    assert "150 are there" in result.error


def ungraded(traces: list[Trace]) -> list[Trace]:
    return [replace(one, steps=tuple(replace(step, correct=None) for step in one.steps)) for one in traces]


def test_traces_without_grading_are_labelled_by_agreement(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "ungraded.jsonl"
    write_traces(ungraded(population(150, seed=2)), path)
    result = run("calibrate", path, "--out", out)
    assert result.code == 0
    assert "no answer is graded" in result.err
    assert load_calibration(out).labels == "agreement"
    explicit = run("calibrate", path, "--labels", "agreement", "--out", out)
    assert explicit.code == 0
    assert "no answer is graded" not in explicit.err


def test_a_grader_grades_the_answers_again(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "ungraded.jsonl"
    texts = {"1": "Answer: 1", "2": "Answer: 2"}
    with_text = [
        replace(one, target="1", steps=tuple(replace(step, text=texts[step.answer or ""]) for step in one.steps))
        for one in ungraded(population(150, seed=2))
    ]
    write_traces(with_text, path)
    assert run("calibrate", path, "--grader", "exact", "--out", out).code == 0
    graded = load_calibration(out)
    assert graded.labels == "graded"
    assert (graded.n_right, graded.n_wrong) == (
        sum(one.steps[0].is_correct for one in population(150, seed=2)),
        sum(not one.steps[0].is_correct for one in population(150, seed=2)),
    )
    assert run("calibrate", path, "--grader", "magic", "--out", out).code == 2


def test_bad_rows_end_the_command_or_are_counted(tmp_path: Path, out: Path) -> None:
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    write_traces([trace(step(0.2 + number / 50), id=str(number)) for number in range(20)], good)
    rows = pq.read_table(good)
    nameless = rows.set_column(0, "id", pa.nulls(len(rows), pa.string()))
    for path, table in ((good, pa.concat_tables([rows, nameless])), (bad, nameless)):
        pq.write_table(table, path)
    refused = run("calibrate", good, "--out", out)
    assert refused.code == 2
    assert f"{good}:21: id is" in refused.error
    assert run("calibrate", good, "--skip-bad", "--out", out).code == 0
    assert load_calibration(out).n == 20
    # Skipped lines are also reported when the command then fails.
    for arguments, code in ((("calibrate", good, "-n", 21), 1), (("calibrate", bad), 2)):
        result = run(*arguments, "--skip-bad", "--out", out)
        assert result.code == code
        assert "skipped 20 bad lines; the first is line" in result.err


def test_an_output_that_cannot_be_written_is_one_error(traces: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("calibrate", traces, "--out", tmp_path / "file" / "c.json")
    assert result.code == 2
    assert "cannot write" in result.error


def test_a_calibration_of_its_own_output_is_read_again(traces: Path, out: Path) -> None:
    assert run("calibrate", traces, "--out", out).code == 0
    read = read_traces(traces).traces
    load_calibration(out).check(read[0])


def test_a_decider_is_fitted_and_its_features_are_shown(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "streams.parquet"
    write_traces(runs(300), path)
    options = ("--threshold", "decider", "--decide", "every", "--max-harm", 0.05)
    result = run("calibrate", path, *options, "--out", out)
    assert result.code == 0
    assert "probability of harm" in result.out
    assert {"minimum", "change", "share"} <= set(result.out.split())
    created = load_calibration(out)
    assert created.decider is not None
    assert run("calibrate", path, *options, "--give-up", "--out", out).code == 0
    assert load_calibration(out).give_up is not None
    assert run("calibrate", path, "--give-up", "--out", out).code == 2
    assert run("calibrate", path, "--threshold", "decider", "--out", out).code == 2
    assert run("report", path, "--calibration", out, "--out", tmp_path / "report.html").code != 0


def test_the_text_ends_with_what_to_do(traces: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    result = run("calibrate", traces, "--out", out)
    assert (
        result.out.splitlines()[-1]
        == f"next: test it on other problems: justenough evaluate OTHERS --calibration {out}"
    )
