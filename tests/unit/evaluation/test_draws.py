"""Calibration draws: each problem is judged by thresholds that have not seen it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from justenough.calibration.certified import RiskControlled
from justenough.calibration.examples import Examples, Outcome, Reason
from justenough.calibration.thresholds import METHODS, Mean
from justenough.errors import InputError
from justenough.evaluation import Price, Table, table_of
from justenough.evaluation import draws as draws_room
from justenough.evaluation.draws import SIZES, Draws, calibration_draws, calibration_sizes, spread_of
from justenough.evaluation.figures import Outcomes
from justenough.gate import GateSettings
from tests.builders import SIGNAL, population

SETTINGS = GateSettings(signal=SIGNAL, max_steps=2)


@dataclass(frozen=True)
class Fixed:
    """A method that ignores its examples."""

    threshold: float | None
    name: str = "fixed"

    def fit(self, examples: Examples) -> Outcome:
        reason: Reason = "ok" if self.threshold is not None else "too_few_right"
        return Outcome(method=self.name, threshold=self.threshold, reason=reason, guarantee="none is refused")


@pytest.fixture(scope="module")
def table() -> Table:
    return table_of(population(60, seed=2), SIGNAL)


def test_a_fixed_threshold_saves_the_same_in_every_draw_from_a_pool(table: Table) -> None:
    draws, done = calibration_draws(table, Fixed(0.6), SETTINGS, n=5, draws=7, seed=0, pool=table)
    assert len(set(draws.savings)) == len(set(draws.changes)) == 1
    assert draws.saving.p5 == draws.saving.p95 == pytest.approx(draws.saving.mean)
    assert draws.threshold is not None
    assert draws.threshold.mean == 0.6
    stops = table.stops(replace(SETTINGS, threshold=0.6))
    assert done.correct.tolist() == table.correct[np.arange(60), stops].astype(float).tolist()
    assert done.averaged


def test_a_problem_that_was_drawn_is_left_out_of_its_draw(table: Table) -> None:
    draws, done = calibration_draws(table, Fixed(0.6), SETTINGS, n=30, draws=1, seed=4)
    drawn = np.random.default_rng((4, 0)).choice(np.arange(60), size=30, replace=False)
    others = np.setdiff1d(np.arange(60), drawn)
    spent = table.spent[others, table.stops(replace(SETTINGS, threshold=0.6))[others]]
    assert draws.savings[0] == pytest.approx(1 - spent.sum() / table.spent[others, -1].sum())
    assert done.tokens[others].tolist() == spent.tolist()
    # A problem that every draw used counts as not stopped; it once counted as wrong, at no tokens.
    assert done.tokens[drawn].tolist() == table.spent[drawn, -1].tolist()
    assert done.correct[drawn].tolist() == table.correct[drawn, -1].tolist()


def test_few_problems_are_drawn_by_halves_and_a_pool_whole(table: Table) -> None:
    few = table.rows(np.arange(6))
    assert calibration_draws(few, Fixed(0.6), SETTINGS, n=10, draws=3, seed=0)[0].n == 3
    assert calibration_draws(few, Fixed(0.6), SETTINGS, n=10, draws=3, seed=0, pool=table.rows(np.arange(8)))[0].n == 8


def test_a_method_without_a_threshold_never_stops(table: Table) -> None:
    draws, done = calibration_draws(table, Fixed(None), SETTINGS, n=5, draws=4, seed=0)
    assert (draws.refused, draws.threshold, draws.reasons) == (1.0, None, {"too_few_right": 4})
    assert draws.savings == (0.0,) * 4
    assert not done.early.any()


def test_too_few_labels_for_a_certificate_are_counted(table: Table) -> None:
    draws, _ = calibration_draws(table, RiskControlled(), SETTINGS, n=20, draws=3, seed=0)
    assert draws.reasons == {"nothing_certified": 3}
    assert draws.refused == 1.0


@pytest.mark.parametrize(("n", "draws"), [(0, 1), (5, 0)])
def test_impossible_numbers_of_draws_are_refused(table: Table, n: int, draws: int) -> None:
    with pytest.raises(InputError, match=f"{draws} draws of {n} examples"):
        calibration_draws(table, METHODS["mean"](), SETTINGS, n=n, draws=draws, seed=0)


def test_money_and_time_are_averaged_too() -> None:
    timed = [
        replace(one, steps=tuple(replace(part, prompt_tokens=3, latency_s=2.0) for part in one.steps))
        for one in population(30, seed=1)
    ]
    table = table_of(timed, SIGNAL, prices={"model": Price(1.0, 1.0)})
    _, done = calibration_draws(table, Fixed(9.0), SETTINGS, n=5, draws=20, seed=0)
    assert done.cost is not None
    assert done.cost.tolist() == pytest.approx([4 / 1e6] * 30)
    assert done.seconds is not None
    assert done.seconds.tolist() == pytest.approx([2.0] * 30)


def test_a_percentile_counts_ties_half() -> None:
    draws = Draws(
        method="mean",
        n=1,
        draws=4,
        saving=spread_of(np.array([0.1, 0.2, 0.2, 0.3])),
        accuracy_change=spread_of(np.zeros(4)),
        threshold=None,
        refused=0.0,
        reasons={},
        savings=(0.1, 0.2, 0.2, 0.3),
        changes=(0.0,) * 4,
    )
    assert [draws.percentile(at) for at in (0.0, 0.2, 0.25, 1.0)] == [0.0, 0.5, 0.75, 1.0]
    assert draws.to_json()["threshold"] is None


def test_a_spread_holds_the_middle_nine_tenths() -> None:
    spread = spread_of(np.arange(101, dtype=np.float64))
    assert (spread.mean, spread.p5, spread.p95) == (50.0, 5.0, 95.0)
    assert spread.to_json() == {"mean": 50.0, "p5": 5.0, "p95": 95.0}


@pytest.fixture(scope="module")
def many() -> Table:
    return table_of(population(240, seed=4), SIGNAL)


class Constant:
    """Always the same threshold."""

    name = "fixed"

    def fit(self, examples: Examples) -> Outcome:
        assert len(examples.entropy) in (*SIZES, 240)
        return Outcome(method=self.name, threshold=0.5, reason="ok")


def test_what_does_not_depend_on_the_draw_has_no_spread(many: Table) -> None:
    rows_of_sizes = calibration_sizes(many, Constant(), SETTINGS, draws=20)
    # 300 labels cannot be had of 240 problems, and half are left to judge on.
    assert [row.n for row in rows_of_sizes] == [5, 10, 20, 50, 100]
    stops = many.stops(GateSettings(signal=SIGNAL, max_steps=2, threshold=0.5))
    rows = np.arange(len(many))
    saving = 1 - many.spent[rows, stops].sum() / many.spent[:, -1].sum()
    change = (many.correct[rows, stops].astype(float) - many.correct[:, -1]).mean()
    for row in rows_of_sizes:
        assert (row.none, row.draws) == (0.0, 20)
        assert row.threshold is not None
        assert (row.threshold.p5, row.threshold.mean, row.threshold.p95) == (0.5, 0.5, 0.5)
        for spread, expected in ((row.saving, saving), (row.accuracy_change, change)):
            assert (spread.p5, spread.mean, spread.p95) == pytest.approx((expected,) * 3)


def test_more_labels_narrow_the_spread(many: Table) -> None:
    rows_of_sizes = calibration_sizes(many, Mean(), SETTINGS, draws=100)
    widths = []
    for row in rows_of_sizes:
        assert row.threshold is not None
        widths.append(row.threshold.p95 - row.threshold.p5)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < widths[0] / 3
    savings = [row.saving.p95 - row.saving.p5 for row in rows_of_sizes]
    assert savings[-1] < savings[0] / 2
    assert calibration_sizes(many, Mean(), SETTINGS, draws=100) == rows_of_sizes
    assert calibration_sizes(many, Mean(), SETTINGS, draws=100, seed=1) != rows_of_sizes


def test_a_draw_without_a_threshold_stops_nothing(many: Table) -> None:
    rows_of_sizes = calibration_sizes(many, RiskControlled(max_harm=0.05), SETTINGS, draws=30)
    small = rows_of_sizes[0]
    assert (small.none, small.threshold) == (1.0, None)
    # All problems together do give a threshold: what a draw without one saves is nothing, up to who is left out.
    assert abs(small.saving.mean) < 0.02
    assert abs(small.accuracy_change.mean) < 0.02


def test_too_few_problems_give_no_row() -> None:
    assert calibration_sizes(table_of(population(9), SIGNAL), Mean(), SETTINGS, draws=5) == ()


@pytest.mark.parametrize("min_tokens", [0, 3])
@pytest.mark.parametrize("pooled", [False, True], ids=["cross-fitted", "pool"])
def test_a_gate_that_decides_once_has_the_outcomes_of_each_draw(
    min_tokens: int, pooled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its draws are counted; the general way adds the outcomes of every draw."""
    table, pool = (table_of(population(60, seed=seed, steps=3), SIGNAL) for seed in (1, 2))
    settings = GateSettings(signal=SIGNAL, max_steps=3, min_tokens=min_tokens)
    method = METHODS["mean"]()

    def drawn() -> tuple[Draws, Outcomes]:
        return calibration_draws(table, method, settings, n=10, draws=20, seed=0, pool=pool if pooled else None)

    counted = drawn()
    monkeypatch.setattr(draws_room, "_once", lambda table, settings: None)
    added = drawn()
    assert counted[0] == added[0]
    for name in ("correct", "tokens", "unanswered", "early", "final"):
        np.testing.assert_array_equal(getattr(counted[1], name), getattr(added[1], name))
