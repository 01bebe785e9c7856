"""The tables on training are what the committed traces give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.real.figures import number
from benchmarks.real.posttraining import FILES, TESTED, light, rewritten, task_files
from benchmarks.real.posttraining_tables import (
    Firsts,
    contrast,
    contrast_table,
    figures,
    models,
    resampled,
    shown,
    squared_errors,
)
from benchmarks.real.tables import PAGE
from justenough.stats import Estimate, auroc, cohens_d, separation, within_groups
from justenough.trace.files import read_traces, write_traces
from tests.builders import step, trace


def firsts(seed: int, *, gap: float, n: int = 120) -> Firsts:
    draw = np.random.default_rng(seed)
    right = draw.random(n) < 0.6
    bits = draw.gamma(2.0, 0.2, n) + gap * ~right
    levels = np.array([f"level-{number % 3}" for number in range(n)])
    loss, tokens = squared_errors(bits, right), draw.integers(20, 60, n).astype(np.float64)
    stops, gained = bits < 0.3, draw.integers(-1, 2, n).astype(np.float64)
    return Firsts(
        bits=bits, right=right, levels=levels, loss=loss, tokens=tokens, saved=tokens / 2 * stops, gained=gained * stops
    )


def test_the_tables_of_the_page_are_computed_from_the_committed_traces() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.count("<!-- post-training -->") == any(FILES.glob("*.parquet"))
    assert rewritten(page) == page


def test_the_figures_before_training_are_those_of_the_committed_samples() -> None:
    traces = read_traces(FILES / "samples" / "base.parquet").traces
    found = separation(
        np.array([trace.steps[0].bits(trace.signal) for trace in traces], dtype=np.float64),
        np.array([trace.steps[0].is_correct for trace in traces]),
        groups=[trace.group or "" for trace in traces],
        problems=[trace.problem or "" for trace in traces],
    )
    row = {
        f"{key}{end}": value
        for key in ("cohens_d", "auroc", "within_groups")
        for end, value in _estimate(getattr(found, key)).items()
    }
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"d {number(row, 'cohens_d', digits=2)}, AUROC {number(row, 'auroc', digits=3)}" in text
    assert f"within levels {number(row, 'within_groups', digits=3)}" in text


def _estimate(found: Estimate) -> dict[str, object]:
    return {"": found.value, "_ci": [found.low, found.high]}


def test_no_training_problem_is_a_test_problem(tmp_path: Path) -> None:
    tested, trained = ([json.loads(line) for line in path.read_text().splitlines()] for path in task_files(tmp_path))
    pairs = [{tuple(sorted(line["problem"].rstrip("?").split()[2:])) for line in lines} for lines in (tested, trained)]
    assert not pairs[0] & pairs[1]
    assert len(tested) == TESTED
    assert len({line["id"] for line in trained}) == len(trained) == 4 * len({line["problem"] for line in trained})


def test_figures_are_those_of_the_library() -> None:
    one = firsts(0, gap=0.2)
    values = figures(one, np.ones((1, len(one.bits))))
    right, wrong = one.bits[one.right], one.bits[~one.right]
    assert values["accuracy"][0] == pytest.approx(one.right.mean())
    assert values["auroc"][0] == pytest.approx(auroc(right, wrong))
    assert values["within"][0] == pytest.approx(within_groups(one.bits, one.right, list(one.levels)))
    assert values["d"][0] == pytest.approx(cohens_d(right, wrong))


def test_a_problem_that_is_taken_twice_counts_twice() -> None:
    one = firsts(0, gap=0.2, n=60)
    counts = resampled(60)[1]
    taken = np.repeat(np.arange(60), counts.astype(int))
    values = figures(one, counts[None, :])
    bits, right = one.bits[taken], one.right[taken]
    assert values["auroc"][0] == pytest.approx(auroc(bits[right], bits[~right]))
    assert values["d"][0] == pytest.approx(cohens_d(bits[right], bits[~right]))


def test_a_gate_saves_the_tokens_after_the_first_step_of_the_answers_below_its_threshold() -> None:
    kinds = (
        (step(0.1, tokens=10), step(0.1, tokens=30, correct=False)),
        (step(0.3, tokens=10),),
        (step(0.5, tokens=10, correct=False), step(0.1, tokens=50)),
    )
    traces = [trace(*kinds[at % 3], id=f"{at:02}") for at in range(30)]
    one, without = Firsts.of(traces, threshold=0.3), Firsts.of(traces)
    assert one.saved.tolist() == [30, 0, 0] * 10
    assert one.gained.tolist() == [1, 0, 0] * 10
    values = figures(one, np.ones((1, 30)))
    assert (values["saving"][0], values["gain"][0]) == pytest.approx((30 / 110, 1 / 3))
    assert not without.saved.any()
    assert not without.gained.any()


def test_a_signal_that_tells_more_is_a_positive_difference_with_an_interval_above_zero() -> None:
    weak, strong = firsts(1, gap=0.0), firsts(1, gap=0.8)
    change = contrast([strong], [weak], resampled(120), agreed=False)
    for name in ("auroc", "within", "d", "skill"):
        assert np.nanquantile(change[name][1:], 0.025) > 0, name
    assert change["accuracy"][0] == 0


def test_problems_that_are_answered_alike_have_the_same_accuracy() -> None:
    one, other = firsts(2, gap=0.3), firsts(3, gap=0.3)
    assert contrast([one], [other], resampled(120), agreed=False)["accuracy"].any()
    assert not contrast([one], [other], resampled(120), agreed=True)["accuracy"].any()


def test_a_difference_as_it_is_written() -> None:
    assert shown(np.array([-0.5, -1.0, 0.0]), digits=1) == "−0.5 [−1.0, −0.0]"
    assert shown(np.array([np.nan, 1.0]), digits=1) == "–"


def test_the_base_model_comes_first_and_then_each_arm(tmp_path: Path) -> None:
    for name in ("any-0", "base", "right-0"):
        traces = [trace(step(0.1 * (at % 7), correct=at % 3 > 0), id=str(at), model=name) for at in range(40)]
        write_traces(traces, tmp_path / f"{name}.parquet")
    files = models(tmp_path)
    assert list(files) == ["base", "right-0", "any-0"]
    rows = [
        line.split(" | ")[0] for line in contrast_table(files, {name: {"thresholds": {"mean": 0.2}} for name in files})
    ]
    assert rows[2:] == ["| right answers − before", "| any answers (control) − before", "| right answers − any answers"]


def test_a_light_trace_keeps_the_bits() -> None:
    heavy = trace(step(top_logprobs=[[-0.1 * k - 1 for k in range(20)]] * 3))
    assert light(heavy).steps[0].bits(heavy.signal) == heavy.steps[0].bits(heavy.signal)
    assert light(heavy).steps[0].top_logprobs is None
