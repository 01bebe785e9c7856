"""Published rules get the same labels as the gate, and choose among settings that were fixed beforehand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from justenough.cli.tables import evaluation_text
from justenough.evaluation import evaluate
from justenough.evaluation.table import table_of
from justenough.evaluation.tuning import Labelled, reads_of, tuned
from justenough.rules.fitted import FITTED
from justenough.rules.looks import looks_of
from justenough.rules.rivals import GRIDS, RIVALS, Deer, Dynasor
from justenough.trace import Trace
from tests.builders import SIGNAL, population
from tests.unit.rules.recorded import converging, streamed, streaming

TRACES = converging(60, seed=3)


def labelled(traces: list[Trace], head: str) -> Labelled:
    return Labelled(table_of(traces, SIGNAL), looks_of(traces, reads_of(head)))


def tuned_on(head: str, labels: list[Trace]) -> list[float]:
    """Tokens of each problem with all labels of other problems."""
    done = tuned(head, labelled(TRACES, head), labelled(labels, head), n=len(labels), draws=4, seed=0, margin=0.0)
    assert not isinstance(done, str)
    tokens: list[float] = done.tokens.tolist()
    return tokens


def test_the_grids_hold_the_authors_settings() -> None:
    for head, grid in GRIDS.items():
        assert RIVALS[head]("") in grid
        assert {rule.head for rule in grid} == {head}
        assert len(set(grid)) == len(grid)


def test_the_setting_is_the_cheapest_that_loses_no_labelled_answer() -> None:
    """With all labels from another file every draw is the same, so it can be found by trying."""
    pool = converging(40, seed=9)
    full = sum(one.tokens for one in pool)
    best: tuple[int, Deer] | None = None
    for rule in GRIDS["deer"]:
        assert isinstance(rule, Deer)
        stops = [rule.replay(one) for one in pool]
        if sum(one.correct for one in stops) >= sum(one.steps[-1].is_correct for one in pool):
            tokens = sum(one.tokens for one in stops)
            best = min(best or (full, rule), (tokens, rule), key=lambda pair: pair[0])
    assert best is not None
    assert best[0] < full
    assert tuned_on("deer", pool) == [best[1].replay(one).tokens for one in TRACES]


def test_a_rule_that_costs_more_than_it_saves_never_stops() -> None:
    """Where only the last answer is right and none repeats, probing only costs."""
    slow = [streaming(*[streamed(text, right=text == "7") for text in "0127"]) for _ in range(10)]
    assert tuned_on("dynasor", slow) == [one.tokens for one in TRACES]
    assert Dynasor(12).replay(slow[0]).tokens > slow[0].tokens


@pytest.mark.parametrize("head", sorted({*GRIDS, *FITTED} - {"leash", "eat"}))
def test_labels_are_never_the_problems_that_are_decided(head: str) -> None:
    """The only problem with another grade changes the outcomes of the others alone."""
    one, other = TRACES[0], TRACES[0].steps
    changed = replace(one, steps=tuple(replace(step, correct=not step.correct) for step in other))
    before, after = (
        tuned(head, labelled([first, *TRACES[1:]], head), None, n=20, draws=4, seed=0, margin=1.0)
        for first in (one, changed)
    )
    assert not isinstance(before, str)
    assert not isinstance(after, str)
    assert before.averaged
    assert before.tokens[0] == after.tokens[0]


def test_rules_that_cannot_stop_in_time_say_so() -> None:
    decided = labelled(TRACES, "eat")
    assert "more than 14 steps" in str(tuned("eat", decided, None, n=20, draws=2, seed=0, margin=0.0))


def test_evaluate_shows_authors_and_tuned_and_names_the_best() -> None:
    shown = evaluate(TRACES, rules="deer,deer:tuned,cusum:tuned,always-one-step,oracle", draws=5, resamples=5, n=20)
    assert set(shown.rules) == {"deer:0.95", "deer:tuned", "cusum:tuned", "always-one-step", "oracle"}
    kept = {
        name: figures.saving.value
        for name, figures in shown.rules.items()
        if figures.saving is not None and figures.accuracy_change.value >= -0.01 and name != "oracle"
    }
    assert shown.best == max(kept, key=lambda name: kept[name])
    assert shown.best != "always-one-step"
    assert shown.to_json()["best"] == shown.best
    text = evaluation_text(shown)
    assert f"best on these problems: {shown.best}, saving" in text
    assert "deer:0.95 (authors)" in text


def test_labels_of_another_file_tune_as_they_fit_the_gate() -> None:
    pool = converging(40, seed=9)
    shown = evaluate(TRACES, pool=pool, rules="deer:tuned", draws=3, resamples=5, n=40)
    assert shown.rules["deer:tuned"].tokens == sum(tuned_on("deer", pool))


def test_what_a_tuned_rule_lacks_is_named() -> None:
    shown = evaluate(population(40), rules="deer:tuned,learn-stop:tuned,es-cot:tuned", draws=2, resamples=5)
    assert shown.missing["deer:tuned"] == "the text of each token"
    assert shown.missing["learn-stop:tuned"] == "the text of each token"
    assert "more than" in shown.missing["es-cot:tuned"]
    assert shown.best is None
    both = evaluate(population(40), rules="deer,deer:tuned", draws=2, resamples=5)
    assert set(both.missing) == {"deer:0.95"}
