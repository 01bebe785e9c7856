"""The arithmetic behind the tables of recorded answers, on synthetic rows of known truth."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import records, timing
from benchmarks.recorded import emergence, gain, information, labelfree, pairs, samples, scalars, transfer
from benchmarks.recorded.data import PAPERS, STAND_IN, Curve, Floats, Ints, fit, load, pair_table, paired, rounded
from benchmarks.recorded.emergence import diagnoses, kind_of, known_figures, separation_of
from justenough.calibration.labelled import Labels, examples_of, gathered
from justenough.calibration.thresholds import Examples, RiskControlled
from justenough.evaluation import Table
from justenough.evaluation.diagnosis import Diagnosis
from justenough.evaluation.figures import figures_of, outcomes
from justenough.evaluation.table import table_of
from justenough.stats import auroc
from tests.builders import step, trace


def table(n: int, *, seed: int = 0, sure: float = 0.2, unsure: float = 0.6, groups: int = 3) -> Table:
    """A pair whose step-1 signal tells right from wrong, and step 2 mends two wrong answers in three."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        first = bool(rng.random() < 0.6)
        last = bool(rng.random() < (0.95 if first else 0.67))
        bits = max(0.01, float(rng.normal(sure if first else unsure, 0.15)))
        begun = step(uncertainty=bits if number % 50 else None, correct=first, tokens=int(rng.integers(10, 30)))
        ended = step(correct=last, tokens=int(rng.integers(100, 300)))
        made.append(trace(begun, ended, id=str(number), group=f"g{number % groups}", signal=STAND_IN))
    return table_of(made, STAND_IN)


def write_records(path: Path, *, n: int = 150) -> Path:
    """Four models; the thinking one separates, the base one does not, and one has no signal at all."""
    rng = np.random.default_rng(5)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["model", "question_id", "category", "extracted_answer", "mean_token_prob", "token_length", "correct"]
        )
        for model, gap in (("Qwen3-8B", 0.1), ("Qwen3-8B-think", 0.3), ("X-Base", 0.0), ("deepseek-reasoner", None)):
            for question in range(n):
                right = bool(rng.random() < 0.6)
                sure = "" if gap is None else 0.8 - (0 if right else gap) + rng.normal(0, 0.05)
                answered = question % 10 > 0
                answer = "A" if answered else ""
                writer.writerow([model, question, f"c{question % 2}", answer, sure, 20 + question, right and answered])
        writer.writerow(["X-Base", "bad", "c0", "A", 7, 20, True])
    return path


@pytest.mark.parametrize("threshold", [None, 0.0, 0.3, 0.45, 9.0])
def test_a_curve_is_what_the_gate_does(threshold: float | None) -> None:
    made = table(300)
    at = Curve.of(made).at(threshold)
    settings = replace(pairs.SETTINGS, threshold=threshold)
    stops = made.stops(settings)
    exact = figures_of(made, {"": outcomes(made, stops)}, margin=0.01, seed=0, resamples=10)[""]
    assert exact.harm is not None
    assert exact.rescue is not None
    assert at.stopped == pytest.approx((stops == 0).mean())
    assert at.change == pytest.approx(exact.accuracy_change.value)
    assert at.saving_vs_last == pytest.approx(exact.saving_vs_last)
    assert at.harm == pytest.approx(exact.harm.value)
    assert at.rescue == pytest.approx(exact.rescue.value)


def test_stopping_is_fitted_on_the_other_half() -> None:
    made = table(400)
    stopping = pairs.stopping(made, pairs.methods()["mean"], resamples=20)
    assert len(set(stopping.thresholds)) == 2
    assert 0.2 < stopping.figures.stopped < 0.6
    # Had each half been judged by its own threshold, the stops would be others.
    own = [fit("mean", made.rows(half).examples()).threshold for half in (slice_of(made), ~slice_of(made))]
    assert set(own) == set(stopping.thresholds)
    swapped = np.where(slice_of(made), float(own[1] or 0), float(own[0] or 0))
    with np.errstate(invalid="ignore"):
        assert stopping.figures.stopped == pytest.approx((made.bits[:, 0] <= swapped).mean())
    refused = pairs.stopping(made, RiskControlled(max_harm=0.001), resamples=20)
    assert (refused.thresholds, refused.figures.stopped) == ((None, None), 0.0)


def slice_of(made: Table) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    half = np.zeros(len(made), dtype=bool)
    half[np.random.default_rng(0).permutation(len(made))[: len(made) // 2]] = True
    return half


def test_transfer_is_measured_against_the_targets_own_threshold() -> None:
    low, high = table(300, seed=1), table(300, seed=2, sure=0.6, unsure=1.0)
    made = transfer.transfer({"low": low, "high": high}, "mean")
    own = [fit("mean", each.examples()).threshold for each in (low, high)]
    assert made.thresholds.tolist() == own
    # The high model never is as sure as the low one's threshold wants, and the low one always as sure as the other's.
    assert made.stopped[0, 1] < 0.02
    assert made.stopped[1, 0] > 0.7
    assert made.change[0, 0] == Curve.of(low).at(own[0]).change
    found = transfer.summary(made, resamples=50)
    assert found is not None
    excess = [made.change[0, 1] - made.change[1, 1], made.change[1, 0] - made.change[0, 0]]
    assert found.misses == pytest.approx(np.abs(excess).mean())
    assert found.excess_change == pytest.approx(np.mean(excess))
    assert found.worst_loss == pytest.approx(-min(excess))
    assert transfer.compared(made, made, resamples=50) == (0.0, 0.0, 0.0)
    same = transfer.summary(transfer.transfer({"a": low, "b": low}, "mean"), resamples=50)
    assert same is not None
    assert (same.misses, same.over_a_point) == (0.0, 0.0)


def test_sources_without_a_threshold_are_counted_and_left_out() -> None:
    backwards = table(300, sure=0.6, unsure=0.2)
    made = transfer.transfer({"a": table(300), "b": backwards}, "info")
    assert transfer.summary(made) is None
    three = transfer.summary(transfer.transfer({"a": table(300), "b": backwards, "c": table(300, seed=4)}, "info"))
    assert three is not None
    assert three.refused == 1


def test_categories_split_a_table() -> None:
    made = table(90)
    parts = transfer.by_category(made)
    assert list(parts) == ["g0", "g1", "g2"]
    assert sum(len(part) for part in parts.values()) == 90


def test_mutual_information_of_a_perfect_signal_is_all_of_it() -> None:
    made = table(400, sure=0.2, unsure=9.0)
    bits = np.where(made.correct[:, 0], 0.2, 0.9) + np.linspace(0, 0.01, 400)
    right = float(made.correct[:, 0].mean())
    whole = -right * math.log2(right) - (1 - right) * math.log2(1 - right)
    found = information.information(replace(made, bits=np.stack([bits, bits], axis=1)))
    # σ ln(1 + d) reaches past every right answer; the mean cuts them in two.
    assert found["info"].at == pytest.approx(whole, abs=0.02)
    assert (found["info"].at or 0) >= found["info"].most > 0.9 * whole
    assert 0.1 * whole < (found["mean"].at or 0) < 0.7 * whole
    short, share = information.informed([found["mean"], found["mean"]], resamples=20) or pytest.fail("none")
    assert short.value == pytest.approx((found["mean"].at or 0) - found["mean"].most)
    assert share.value == pytest.approx((found["mean"].at or 0) / found["mean"].most)
    backwards = information.information(table(300, sure=0.6, unsure=0.2))
    assert backwards["info"].at is None
    assert information.informed([backwards["info"]]) is None


def test_what_is_maximised_on_noise_is_nothing_elsewhere() -> None:
    """Judged on the questions that it was chosen on, the best of a thousand thresholds would look informative."""
    made = table(2000, sure=0.4, unsure=0.4)
    assert information._mutuals(made.rows(np.arange(1000))).max() > 0.002
    assert abs(information.information(made)["mean"].most) < 0.0015


def test_mutual_information_by_hand() -> None:
    made = table(8)
    made = replace(
        made,
        bits=np.arange(8.0)[:, None] * np.ones((1, 2)),
        correct=np.array([True, True, True, False, True, False, False, False])[:, None] * np.ones((1, 2), dtype=bool),
    )
    # Of the first four three are right: I = 1 - H(1/4).
    expected = 1 + 0.25 * math.log2(0.25) + 0.75 * math.log2(0.75)
    assert information._mutual(made, 3.5) == pytest.approx(expected)
    assert information._mutual(made, -1.0) == 0.0


def test_sets_of_transfers_are_averaged_by_set() -> None:
    first = {"a": table(300, seed=1), "b": table(300, seed=2, sure=0.6, unsure=1.0)}
    second = {"c": table(300, seed=3), "d": table(300, seed=4), "e": table(300, sure=0.6, unsure=0.2)}
    grids = [transfer.all_methods(first), transfer.all_methods(second)]
    found = transfer.across(grids, "info", resamples=50)
    parts = [transfer.summary(made["info"]) for made in grids]
    assert found is not None
    # One of the five has no threshold: nothing is fitted on it, nothing applied to it.
    assert (found.sets, found.transfers, found.refused) == (2, 4, 1 / 5)
    assert found.misses.value == pytest.approx(np.mean([part.misses for part in parts if part is not None]))
    versus = [transfer.compared(made["info"], made["mean"], resamples=50)[0] for made in grids]
    assert found.against_mean.value == pytest.approx(np.mean(versus))
    assert transfer.across([transfer.all_methods({"e": second["e"]})], "info") is None


def test_families_are_of_one_make_and_several_sizes() -> None:
    names = [
        "Qwen3-0.6B",
        "Qwen3-30B-A3B",
        "Qwen3-8B-think",
        "Qwen3-4B-think",
        "Mixtral-8x7B-v0.1",
        "gpt-4o",
        "Phi-3-mini-x",
        "Phi-3-medium-x",
    ]
    assert transfer.families(names) == {
        "Qwen3-*": ["Qwen3-0.6B", "Qwen3-30B-A3B"],
        "Qwen3-*-think": ["Qwen3-8B-think", "Qwen3-4B-think"],
        "Phi-3-*-x": ["Phi-3-mini-x", "Phi-3-medium-x"],
    }


def test_signals_are_told_apart_on_questions_not_fitted_on() -> None:
    rng = np.random.default_rng(2)
    made = []
    for row in range(1000):
        right = bool(rng.random() < 0.5)
        # Both tell a little, and independently.
        bits, tokens = rng.normal(0.4 if right else 0.5, 0.1), rng.normal(100 if right else 120, 20)
        first = step(uncertainty=float(max(0.0, bits)), correct=right, tokens=int(max(1, tokens)))
        made.append(trace(first, id=str(row), signal=STAND_IN))
    found = scalars.model_auroc(made)
    assert found is not None
    assert found.mean == pytest.approx(0.76, abs=0.05)
    assert (found.beside["combination"].low or 0) > 0.02
    assert (found.beside["sum"].low or 0) > 0.02
    assert abs(found.beside["length"].value) < 0.06
    assert found.beside["combination"].n == 500
    assert scalars.model_auroc([trace(step(uncertainty=None), signal=STAND_IN)]) is None
    assert scalars.by_kind({"X-Base": found})["base"]["sum"].value == found.beside["sum"].value


def test_the_interval_of_a_difference_is_the_bootstrap_s() -> None:
    rng = np.random.default_rng(3)
    right = rng.random(400) < 0.6
    base = rng.normal(np.where(right, 0.0, 1.0), 1.0)
    other = base + rng.normal(0, 1.0, 400)
    found = scalars.difference(other, base, right)
    draws = []
    for _ in range(400):
        rows = np.concatenate([rng.choice(kind, len(kind)) for kind in (np.flatnonzero(right), np.flatnonzero(~right))])
        kinds = right[rows]
        areas = [auroc(values[rows][kinds], values[rows][~kinds]) or 0.0 for values in (other, base)]
        draws.append(areas[0] - areas[1])
    assert found.value == pytest.approx(
        (auroc(other[right], other[~right]) or 0) - (auroc(base[right], base[~right]) or 0)
    )
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, (0.025, 0.975))), abs=0.012)


def test_agreement_stands_in_for_grades() -> None:
    rng = np.random.default_rng(1)
    made = []
    for row in range(1200):
        right, helped = bool(rng.random() < 0.5), bool(rng.random() < 0.9)
        last = right if not helped else True
        first = step(
            uncertainty=float(abs(rng.normal(0.2 if right else 0.6, 0.1))), answer="1" if right else "2", correct=right
        )
        made.append(
            trace(first, step(answer="1" if last else "3", correct=last, tokens=100), id=str(row), signal=STAND_IN)
        )
    examples: dict[Labels, Examples] = {
        labels: examples_of(gathered(made, signal=STAND_IN).labelled, labels=labels) for labels in labelfree.LABELS
    }
    columns = table_of(made, STAND_IN)
    how = labelfree.agreement(examples["graded"], examples["agreement"])
    assert how.agrees == how.right
    assert how.same == 1.0
    same = labelfree.distance(columns, examples, pairs.methods()["bayes"], resamples=20)
    assert same.off is not None
    assert (same.off.value, same.change.value, same.saving) == (0.0, 0.0, 0.0)
    assert same.graded == same.agreement
    # Where agreement is a coin toss, the labels differ and so do the thresholds.
    tossed = examples["agreement"]
    tossed = replace(tossed, correct=tossed.correct ^ (rng.random(len(tossed.correct)) < 0.3))
    other = labelfree.distance(columns, {**examples, "agreement": tossed}, pairs.methods()["mean"], resamples=20)
    assert other.off is not None
    assert (other.off.low or 0) > 0.05
    assert other.change.value < 0
    assert other.saving > 0
    assert other.agreement.harm > other.graded.harm


def test_equivalence_is_two_one_sided_tests() -> None:
    values = np.linspace(-1, 1, 2001)
    wide = samples.equivalence(values, 0.95)
    assert wide.equivalent
    assert wide.needed_margin == pytest.approx(0.9, abs=1e-3)
    narrow = samples.equivalence(values, 0.5)
    assert not narrow.equivalent
    assert narrow.p == pytest.approx(0.25, abs=1e-3)
    # One side alone is not enough.
    assert not samples.equivalence(values + 1, 0.95).equivalent


def test_more_labels_narrow_the_threshold() -> None:
    made = table(1500)
    whole, rows = samples.sizes(made, "mean", draws=60, ns=(5, 100, 5000))
    assert whole == fit("mean", made.examples()).threshold
    assert [row.n for row in rows] == [5, 100]
    few, many = rows
    assert few.threshold is not None
    assert many.threshold is not None
    assert many.threshold.p95 - many.threshold.p5 < (few.threshold.p95 - few.threshold.p5) / 2
    assert few.signal is not None
    assert many.signal is not None
    assert many.signal.equivalent
    assert not few.signal.equivalent


def test_draws_are_judged_on_the_others() -> None:
    made = table(200)
    drawn = np.arange(40, 70)
    rest = made.rows(np.setdiff1d(np.arange(200), drawn))
    for threshold in (None, 0.35):
        found = samples._others(Curve.of(made), made, made.rows(drawn), threshold)
        exact = Curve.of(rest).at(threshold)
        assert found[0] == pytest.approx(exact.saving_vs_last)
        assert found[1] == pytest.approx(exact.change)


def test_the_cut_keeps_the_loss_within_bounds_ties_together() -> None:
    scores = np.array([1.0, 2.0, 2.0, 3.0])
    first, last = np.array([True, False, True, True]), np.array([False, True, True, True])
    # After the first one answer is saved, after the ties one lost again: (0 + 1) / 4.
    assert gain.cut(scores, first, last, max_loss=0.25) == 3.0
    assert gain.cut(scores, first, last, max_loss=0.2) == 1.0
    assert gain.cut(scores, last, first, max_loss=0.2) is None


def test_gain_aware_stops_where_extending_does_not_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gain, "SEEDS", 2)
    rng = np.random.default_rng(3)
    n = 3000
    hopeless = rng.random(n) < 0.4
    first = ~hopeless & (rng.random(n) < 0.5)
    # Extension mends what is not hopeless; the signal shows right from wrong, not hopeless from mendable.
    last = ~hopeless
    bits = np.where(first, 0.3, 0.6) + rng.normal(0, 0.2, n)
    made = [
        trace(
            step(uncertainty=max(0.0, float(bits[row])), correct=bool(first[row]), tokens=10),
            step(correct=bool(last[row]), tokens=100),
            id=str(row),
            group="hopeless" if hopeless[row] else "fair",
            signal=STAND_IN,
        )
        for row in range(n)
    ]
    found = gain.ways(made)
    with_category = found["gain: signal, length, category"]
    assert with_category.stopped > 0.4
    assert with_category.stopped > 3 * found["P(step 1 wrong): the same inputs"].stopped
    assert with_category.change.value > -0.015
    assert with_category.folds is not None
    assert with_category.folds[0] <= with_category.stopped <= with_category.folds[1]
    assert with_category.stopped_ci[0] < with_category.stopped < with_category.stopped_ci[1]
    assert with_category.in_sample == pytest.approx(with_category.stopped, abs=0.02)
    assert found["paper: mean"].change.value < -0.02
    assert found["gain: signal alone"].change.value > -0.02
    assert set(found) >= {f"paper: {method}" for method in PAPERS}


def test_what_remembers_its_questions_flatters_itself_only_in_sample() -> None:
    made = table(1000, sure=0.4, unsure=0.4)
    helps = made.correct[:, -1].astype(float) - made.correct[:, 0]
    noise = np.random.default_rng(8).random(1000)

    def remembering(train: Ints, held: Ints) -> Floats:
        return np.where(np.isin(held, train), helps[held], noise[held])

    found = gain.by_cross_validation(made, remembering)
    assert found.in_sample is not None
    assert found.in_sample > 0.7
    assert found.in_sample_change is not None
    assert found.in_sample_change > 0
    assert found.stopped < 0.2


def test_nothing_is_stopped_without_a_signal() -> None:
    made = table(200)
    stops = gain.nested(made, lambda _, held: np.zeros(len(held)), max_loss=1.0)
    assert stops.sum() == np.isfinite(made.bits[:, 0]).sum() < 200


def test_emergence_leaves_nothing_out_silently(tmp_path: Path) -> None:
    found = load(write_records(tmp_path / "r.csv"))
    assert found.bad == 1
    made = diagnoses(found, resamples=20)
    assert isinstance(made["deepseek-reasoner"], str)
    thinking = made["Qwen3-8B-think"]
    assert isinstance(thinking, Diagnosis)
    assert thinking.separation.verdict == "separates"
    # Every tenth row is unanswered and left out here.
    assert thinking.problems == 135
    d, area = separation_of(found.by_model["Qwen3-8B-think"], answered_only=True)
    assert thinking.separation.cohens_d is not None
    assert thinking.separation.auroc is not None
    assert (d, area) == (thinking.separation.cohens_d.value, thinking.separation.auroc.value)
    assert separation_of(found.by_model["Qwen3-8B-think"], answered_only=False)[0] != d
    assert [made.same for made in known_figures(found)] == [None] * 3
    kinds = {model: kind_of(model) for model in ("Qwen3-8B", "Qwen3-8B-think", "X-Base", "gpt-4o")}
    assert list(kinds.values()) == ["thinking off", "thinking", "base", "instruct"]


def test_a_pair_joins_by_question(tmp_path: Path) -> None:
    found = load(write_records(tmp_path / "r.csv"))
    assert pairs.pairs(found) == [pairs.Pair("Qwen3-8B", "Qwen3-8B-think")]
    made = paired(found, "Qwen3-8B", "Qwen3-8B-think")
    assert len(made) == 150
    assert made[7].steps == tuple(found.by_model[name][7].steps[0] for name in ("Qwen3-8B", "Qwen3-8B-think"))
    assert pair_table(found, "Qwen3-8B", "Qwen3-8B-think").unanswered.sum() == 30


def test_the_whole_runs_and_writes_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timing, "RESULTS", tmp_path / "results")
    path = write_records(tmp_path / "r.csv")
    assert records.main([str(path), "--resamples", "20", "--draws", "4"]) == 0
    shown = capsys.readouterr().out
    written = json.loads((tmp_path / "results" / "records.json").read_text())
    assert set(written) == {"answers", "models", "bad", *records.PARTS}
    assert "1 bad rows" in shown
    assert "left out: no signal" in shown
    assert shown.count("left out, ") >= 2
    whole = written["pairs"]["Qwen3-8B → Qwen3-8B-think"]["methods"]["mean"]
    assert f"{100 * whole['stopped']:.1f} %" in shown


def test_numbers_are_rounded_and_nan_is_null() -> None:
    assert rounded({"a": (1.23456, math.nan), 1: np.array([0.00001])}) == {"a": [1.2346, None], "1": [0.0]}


def test_known_figures_that_are_not_reproduced_end_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(emergence, "ROWS", 150)
    assert records.main([str(write_records(tmp_path / "r.csv")), "--parts", "known"]) == 1
