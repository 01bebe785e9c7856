"""A rule's figures by hand: accuracy, savings, harm and rescue, against each of the baselines."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from justenough.evaluation import Price, Table, table_of
from justenough.evaluation.figures import Figures, Outcomes, estimate_json, figures_of, interval, outcomes
from justenough.stats import Estimate, wilson
from justenough.stats.tango import tango_interval
from justenough.trace import Json, Probe, Trace
from tests.builders import SIGNAL, population, step, trace

PRICES = {"model": Price(1.0, 2.0)}


def two_steps(identity: str, first: bool, last: bool, *, tokens: int = 10) -> Trace:
    """Two steps of `tokens` and twice as many, each of one second for each token."""
    steps = [
        replace(
            step(0.5, answer="1" if right else "2", correct=right, tokens=count),
            prompt_tokens=5,
            latency_s=float(count),
        )
        for right, count in ((first, tokens), (last, 2 * tokens))
    ]
    return trace(*steps, id=identity)


# Right throughout, rescued by the second step, spoilt by it, wrong throughout.
TRACES = [
    two_steps("rr", True, True),
    two_steps("wr", False, True),
    two_steps("rw", True, False),
    two_steps("ww", False, False),
]
EARLY = np.zeros(4, dtype=np.int64)
LATE = np.ones(4, dtype=np.int64)


def figures(
    table: Table,
    done: Outcomes,
    *,
    oracle_saving: float | None = None,
    margin: float = 0.1,
    seed: int = 0,
    resamples: int = 50,
) -> Figures:
    rules = {"": replace(done, oracle_saving=oracle_saving)}
    return figures_of(table, rules, margin=margin, seed=seed, resamples=resamples)[""]


@pytest.fixture(scope="module")
def table() -> Table:
    return table_of(TRACES, SIGNAL, prices=PRICES)


def test_stopping_every_problem_at_once(table: Table) -> None:
    done = outcomes(table, EARLY)
    assert done.correct.tolist() == [1, 0, 1, 0]
    assert done.tokens.tolist() == [10] * 4
    assert done.early.tolist() == [1] * 4
    assert done.harm.tolist() == [0, 1, 0, 0]
    assert done.rescue.tolist() == [0, 0, 1, 0]
    results = figures(table, done, oracle_saving=0.5, margin=0.1, seed=0, resamples=50)
    assert (results.accuracy, results.accuracy_change.value, results.stopped) == (0.5, 0.0, 1.0)
    assert results.saving is not None
    assert results.saving.value == pytest.approx(2 / 3)
    assert results.saving_vs_first == pytest.approx(0.0)
    assert results.saving_vs_last == pytest.approx(0.5)
    assert results.oracle_share == pytest.approx((2 / 3) / 0.5)
    assert results.latency_saving == pytest.approx(2 / 3)
    assert results.cost == pytest.approx(4 * (5 + 20) / 1e6)
    assert results.cost_saving is not None
    assert results.cost_saving.value == pytest.approx(1 - 25 / 70)
    assert results.cost_saving_vs_last == pytest.approx(1 - 25 / 45)
    assert (results.harm, results.rescue) == (results.rescue, results.harm)
    assert results.harm is not None
    assert results.harm.value == 0.25
    assert results.mcnemar_p == 1.0


def test_never_stopping_saves_nothing_and_harms_nobody(table: Table) -> None:
    results = figures(table, outcomes(table, LATE), oracle_saving=None, margin=0.1, seed=0, resamples=50)
    assert results.saving is not None
    assert (results.saving.value, results.stopped, results.latency_saving) == (0.0, 0.0, 0.0)
    assert results.harm is not None
    assert results.harm.value == 0.0
    assert results.oracle_share is None
    # No pair differs, and four problems say little of others.
    assert results.accuracy_change.value == 0.0
    assert results.accuracy_change.interval == pytest.approx((-0.49, 0.49), abs=0.01)
    assert results.non_inferiority is not None
    assert results.accuracy_change.interval == (results.non_inferiority.low, results.non_inferiority.high)


@pytest.mark.parametrize("oracle", [0.0, -0.1, None])
def test_an_oracle_that_saves_nothing_has_no_share(table: Table, oracle: float | None) -> None:
    done = outcomes(table, EARLY)
    assert figures(table, done, oracle_saving=oracle, margin=0.1, seed=0, resamples=10).oracle_share is None


def layered(identity: str, *steps: tuple[int, int, int]) -> Trace:
    """Steps of so many tokens, layers in sum, and most layers of one token."""
    parts = [
        replace(step(0.5, tokens=tokens), extra={"layers": layers, "depth": deepest})
        for tokens, layers, deepest in steps
    ]
    return trace(*parts, id=identity)


def test_a_stop_whose_answer_costs_as_much_as_the_rest_of_the_thought_is_a_stop() -> None:
    steps = [replace(step(0.5, tokens=10), probe=Probe(answer="1", correct=True, tokens=cost)) for cost in (12, 2)]
    both = table_of([trace(*steps, shape="streaming"), trace(steps[0], id="short", shape="streaming")], SIGNAL)
    done = outcomes(both, np.array([0, 0]))
    assert done.tokens[0] == both.spent[0, -1]
    # The second problem has no later step.
    assert done.early.tolist() == [1, 0]


def test_layers_are_saved_by_early_exits_and_by_early_stops() -> None:
    """The network has 4 layers: the second step of `a` never reaches the last one."""
    both = table_of([layered("a", (10, 25, 4), (10, 20, 3)), layered("b", (5, 20, 4))], SIGNAL)
    assert both.layers is not None
    assert both.layers.tolist() == [[25, 45], [20, 20]]
    late = figures(both, outcomes(both, np.array([1, 1])))
    assert late.layers_saving == pytest.approx(1 - 65 / 100)
    early = figures(both, outcomes(both, np.array([0, 0])))
    assert early.layers_saving == pytest.approx(1 - 45 / 100)
    assert early.to_json()["layers_saving"] == early.layers_saving
    assert both.rows(np.array([1])).layers == pytest.approx(np.array([[20, 20]]))


@pytest.mark.parametrize("extra", [{}, {"layers": 25}, {"layers": "25", "depth": 4}, {"layers": True, "depth": 4}])
def test_without_layers_in_every_step_there_is_no_share(extra: dict[str, Json]) -> None:
    other = trace(replace(step(0.5, tokens=10), extra=extra), id="b")
    bare = table_of([layered("a", (10, 25, 4)), other], SIGNAL)
    assert figures(bare, outcomes(bare, np.zeros(2, dtype=np.int64))).layers_saving is None


def test_a_rule_that_probes_pays_for_the_probes(table: Table) -> None:
    free, probing = outcomes(table, EARLY), outcomes(table, EARLY, np.full(4, 13.0))
    assert probing.tokens.tolist() == [13.0] * 4
    assert free.cost is not None
    assert probing.cost is not None
    assert (probing.cost - free.cost).tolist() == pytest.approx([3 * 2 / 1e6] * 4)
    assert probing.early.tolist() == free.early.tolist()


def test_means_over_draws_have_no_pairs_and_no_counts(table: Table) -> None:
    half = outcomes(table, EARLY)
    averaged = Outcomes(
        correct=(half.correct + half.final) / 2,
        final=half.final,
        tokens=half.tokens,
        unanswered=half.unanswered,
        early=half.early,
        averaged=True,
    )
    results = figures(table, averaged, oracle_saving=0.5, margin=0.1, seed=0, resamples=200)
    assert results.mcnemar_p is None
    assert results.non_inferiority is None
    assert results.cost is None
    assert results.latency_saving is None
    assert results.harm is not None
    assert results.harm.value == 0.125
    assert results.harm == wilson(0.5, 4)
    assert results.accuracy_change.value == 0.0
    # The interval is that of one draw for each problem: half a pair gained and half a pair lost.
    assert results.accuracy_change.interval == pytest.approx(tango_interval(0.5, 0.5, 4))


def test_a_mean_over_draws_that_never_stopped_has_an_interval_with_a_width() -> None:
    table = table_of(population(60, seed=2), SIGNAL)
    late = replace(outcomes(table, np.full(60, table.steps - 1)), averaged=True)
    change = figures(table, late).accuracy_change
    assert change.value == 0.0
    assert change.interval == pytest.approx(tango_interval(0, 0, 60))
    assert change.high is not None
    assert change.high > 0.05


def test_without_tokens_there_is_no_saving() -> None:
    bare = table_of([two_steps("a", True, True, tokens=0)], SIGNAL)
    results = figures(
        bare, outcomes(bare, np.zeros(1, dtype=np.int64)), oracle_saving=None, margin=0.1, seed=0, resamples=5
    )
    assert results.saving is None
    assert results.saving_vs_first is None
    assert results.saving_vs_last is None
    assert results.cost is None


def test_figures_are_plain_json_with_an_interval_for_each_estimate(table: Table) -> None:
    results = figures(table, outcomes(table, EARLY), oracle_saving=0.5, margin=0.1, seed=0, resamples=50).to_json()
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    for key in ("accuracy_change", "saving", "cost_saving", "harm", "rescue"):
        assert isinstance(results[f"{key}_ci"], list)
    assert isinstance(results["non_inferiority"], dict)
    assert results["non_inferiority"]["margin"] == 0.1


def test_an_estimate_without_limits_has_no_interval() -> None:
    assert interval(None) is None
    assert interval(Estimate(0.5, None, None, 3)) is None
    assert interval(Estimate(0.5, 0.25, 0.75, 3)) == [0.25, 0.75]
    assert estimate_json(None) is None
    assert estimate_json(Estimate(0.5, 0.25, 0.75, 3)) == {"value": 0.5, "low": 0.25, "high": 0.75, "n": 3}


def test_the_same_seed_gives_the_same_intervals(table: Table) -> None:
    done = outcomes(table, EARLY)
    first, again, other = (
        figures(table, done, oracle_saving=0.5, margin=0.1, seed=seed, resamples=40).accuracy_change
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first.value == other.value


def test_copies_of_the_problems_leave_every_interval_as_wide() -> None:
    once = population(60, seed=4)
    copies = [replace(one, seed=run) for one in once for run in range(10)]
    rows = []
    for table in (table_of(once, SIGNAL), table_of(copies, SIGNAL)):
        stops = np.where(table.bits[:, 0] <= 0.45, 0, table.steps - 1)
        rows.append(figures(table, outcomes(table, stops), oracle_saving=None, margin=0.01, seed=0, resamples=2000))
    for name in ("accuracy_change", "harm", "rescue", "saving"):
        single, several = (getattr(row, name) for row in rows)
        assert several.value == pytest.approx(single.value)
        assert several.interval == pytest.approx(single.interval, abs=0.01)
    assert rows[0].stopped > 0.2
    assert [row.non_inferiority.verdict for row in rows if row.non_inferiority] == ["inconclusive"] * 2
    assert (rows[0].mcnemar_p is None, rows[1].mcnemar_p) == (False, None)
