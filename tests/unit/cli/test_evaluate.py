"""`justenough evaluate`: figures with and without a calibration, rules, prices, and problems that are left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from justenough.calibration.calibration import load_calibration
from justenough.trace import Step
from justenough.trace.files import write_traces
from tests.builders import population
from tests.unit.cli.invoke import run
from tests.unit.rules.recorded import converging

# The keys that others script against (DESIGN.md, Promises).
PROMISED = (
    "problems unanswered accuracy_first accuracy_full accuracy_gated accuracy_change_ci tokens_first tokens_last"
    " tokens_full tokens_gated saving saving_vs_first saving_vs_last decide oracle_saving oracle_share cohens_d"
    " cohens_d_ci auroc auroc_ci auroc_within_groups verdict harm rescue thresholds threshold_outcomes rules draws"
)


def test_the_promised_keys_are_there(traces: Path) -> None:
    result = run("evaluate", traces, "--draws", 5, "--json")
    assert result.code == 0
    assert [key for key in PROMISED.split() if key not in result.json] == []
    assert (result.json["problems"], result.json["left_out"], result.json["calibrated"]) == (150, 0, False)
    assert (result.json["draws"]["draws"], result.json["draws"]["n"]) == (5, 10)


def test_the_text_shows_signal_rules_and_draws(traces: Path) -> None:
    result = run("evaluate", traces, "--draws", 5)
    assert result.err == ""
    lines = result.out.splitlines()
    assert lines[0] == "model on task: 150 problems of 2 steps"
    assert "signal: separates; d " in result.out
    assert any(line.startswith("entropy-mean ") for line in lines)
    assert any(line.startswith("5 draws of 10 examples, mean: saving ") for line in lines)


def test_problems_of_the_calibration_are_left_out(traces: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    assert run("calibrate", traces, "-n", 20, "--out", out).code == 0
    reply = run("evaluate", traces, "--calibration", out, "--draws", 5, "--json").json
    assert (reply["problems"], reply["left_out"], reply["calibrated"]) == (130, 20, True)
    result = run("evaluate", traces, "--calibration", out, "--draws", 5)
    assert "130 problems of 2 steps; 20 more are left out" in result.out
    assert run("calibrate", traces, "--out", out).code == 0
    none_left = run("evaluate", traces, "--calibration", out)
    assert none_left.code == 2
    assert "none is left to evaluate on" in none_left.error


def test_only_the_named_rules_are_replayed(traces: Path) -> None:
    reply = run("evaluate", traces, "--rules", "oracle,entropy-mean", "--draws", 5, "--json").json
    assert set(reply["rules"]) == {"oracle", "entropy-mean"}
    table = run("evaluate", traces, "--rules", "oracle", "--draws", 5).out
    assert "\noracle " in table
    assert "\nentropy-mean " not in table


def test_decide_and_margin_are_taken(traces: Path) -> None:
    reply = run("evaluate", traces, "--decide", "every", "--margin", 0.05, "--draws", 5, "--json").json
    assert (reply["decide"], reply["margin"]) == ("every", 0.05)
    assert run("evaluate", traces, "--decide", "never").code == 2


def test_the_seed_changes_the_draws_only(traces: Path) -> None:
    one, other, again = (run("evaluate", traces, "--draws", 5, "--seed", seed, "--json").json for seed in (0, 1, 0))
    assert one == again
    assert one["draws"] != other["draws"]
    assert one["accuracy_first"] == other["accuracy_first"]


def long(step: Step) -> Step:
    """The step with 100 tokens and a prompt."""
    return replace(step, prompt_tokens=10, tokens=100, entropies=tuple(step.entropies or ()) * 100)


@pytest.fixture
def priced(tmp_path: Path) -> Path:
    path = tmp_path / "priced.jsonl"
    write_traces([replace(one, steps=tuple(map(long, one.steps))) for one in population(60, seed=2)], path)
    return path


def test_prices_give_the_saving_in_money(priced: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"model": {"input": 1.0, "output": 2.0}}))
    reply = run("evaluate", priced, "--prices", prices, "--draws", 5, "--json").json
    assert reply["cost"] > 0
    assert 0 < reply["cost_saving"] < 1
    result = run("evaluate", priced, "--prices", prices, "--draws", 5).out
    assert "money saved" in result
    assert "money: " in result
    assert run("evaluate", priced, "--draws", 5, "--json").json["cost"] is None
    prices.write_text("{}")
    assert "prices" in run("evaluate", priced, "--prices", prices).error


def test_bad_lines_end_the_command_or_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    write_traces(population(60, seed=2), path)
    with path.open("a") as file:
        file.write('{"id": "x"}\n')
    refused = run("evaluate", path)
    assert refused.code == 2
    assert f"{path}:61: model is missing" in refused.error
    result = run("evaluate", path, "--skip-bad", "--draws", 5, "--json")
    assert result.json["problems"] == 60
    assert "skipped 1 bad line; the first is line 61: model is missing" in result.err


def test_a_calibration_of_another_model_is_refused(traces: Path, tmp_path: Path) -> None:
    other, out = tmp_path / "other.jsonl", tmp_path / "c.json"
    write_traces(population(60, seed=3, model="other"), other)
    assert run("calibrate", other, "--out", out).code == 0
    result = run("evaluate", traces, "--calibration", out)
    assert result.code == 2
    assert "the calibration is for other" in result.error


def test_a_rule_with_sparse_looks_is_replayed_with_only_their_probes(tmp_path: Path) -> None:
    path = tmp_path / "streams.jsonl"
    write_traces(converging(40), path)
    rules = run("evaluate", path, "--rules", "deer,deer@1,deer@4,deer@1-8", "--json").json["rules"]
    assert set(rules) == {"deer:0.95", "deer:0.95@1", "deer:0.95@4", "deer:0.95@1-8"}
    assert rules["deer:0.95"]["tokens"] == rules["deer:0.95@1"]["tokens"]
    assert rules["deer:0.95@4"]["tokens"] != rules["deer:0.95"]["tokens"]
    refused = run("evaluate", path, "--rules", "oracle@4")
    assert refused.code == 2
    assert "oracle cannot stop a live run" in refused.error


def test_the_last_lines_answer_and_say_what_to_do(traces: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    assert run("calibrate", traces, "-n", 40, "--out", out).code == 0
    answer, step = run("evaluate", traces, "--calibration", out).out.splitlines()[-2:]
    assert answer.startswith(("Yes: ", "No: ", "Not yet: "))
    assert step.startswith("next: ")
    one = tmp_path / "one.jsonl"
    write_traces(population(150, seed=2, steps=1), one)
    assert run("evaluate", one).out.splitlines()[-1].startswith("next: collect with --steps 2 or more")


def test_a_gate_that_stops_nothing_is_a_warning(traces: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    assert run("calibrate", traces, "-n", 40, "--out", out).code == 0
    fit = load_calibration(out)
    for threshold, reason in ((None, "it has no threshold"), (1e-9, "the gate stops at no problem")):
        replace(fit, threshold=threshold).save(out)
        result = run("evaluate", traces, "--calibration", out, "--json")
        assert reason in result.json["warnings"][0]
    one = tmp_path / "one.jsonl"
    write_traces(population(60, steps=1), one)
    assert "only one step" in run("evaluate", one, "--json").json["warnings"][0]


def test_a_plot_is_an_svg_file(traces: Path, tmp_path: Path) -> None:
    out = tmp_path / "rules.svg"
    result = run("evaluate", traces, "--draws", 5, "--rules", "oracle", "--plot", out)
    assert (result.code, result.err) == (0, "")
    assert "oracle" in out.read_text()
    assert "does not end in .svg" in run("evaluate", traces, "--plot", tmp_path / "x.png").err
    assert "cannot write" in run("evaluate", traces, "--draws", 5, "--rules", "oracle", "--plot", "/proc/x.svg").error


def test_a_simpler_rule_that_does_better_is_named(tmp_path: Path) -> None:
    """The second of three steps is always right, and the gate waits for the first."""
    path = tmp_path / "t.jsonl"
    traces = [
        replace(one, steps=(one.steps[0], replace(one.steps[1], correct=True), replace(one.steps[2], tokens=500)))
        for one in population(150, steps=3, seed=2)
    ]
    write_traces(traces, path)
    answer, step = run("evaluate", path).out.splitlines()[-2:]
    assert answer.startswith("No: a rule that uses no entropy does better here: always-2-steps")
    assert (
        step == "next: use the simpler rule in place of this gate: --rule always-2-steps with collect, solve or serve"
    )
