"""Each rival's stop and its tokens, counted by hand, in both shapes; what is not recorded is named."""

from __future__ import annotations

import importlib
import math
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.cli.tables import evaluation_text
from justenough.errors import InputError
from justenough.evaluation import evaluate
from justenough.rules.dynamics import CodeStop, EsCot, Leash
from justenough.rules.fitted import FITTED
from justenough.rules.looks import FirstPassage
from justenough.rules.rivals import GRIDS, LIVE, RIVALS, Eat, HaltCoT, caveat, not_applicable
from justenough.rules.rules import MissingField, open_rule
from justenough.trace import Probe, Trace
from tests.builders import SIGNAL, population, step, trace
from tests.unit.rules.recorded import sample, stop, streamed, streaming, whole


def test_answer_convergence_needs_equal_answers_in_a_row() -> None:
    whole_steps = [step(0.5, tokens=10 * number, answer=answer) for number, answer in enumerate("3445", 1)]
    assert stop("answer-convergence", trace(*whole_steps)) == (3, 60)
    assert stop("answer-convergence:3", trace(*whole_steps)) == (4, 100)
    # Two earlier steps were probed for their answers: four tokens each.
    made = streaming(streamed("3"), streamed("1/2"), streamed("0.5"), streamed("4"))
    assert stop("answer-convergence", made) == (3, 30 + 4 + 8)
    bare = replace(made, steps=tuple(replace(one, probe=None) for one in made.steps))
    with pytest.raises(MissingField, match="probed answer") as raised:
        open_rule("answer-convergence", others=RIVALS).replay(bare)
    assert raised.value.rule == "answer-convergence:2"


def test_halt_cot_needs_two_sharp_answers_in_a_row() -> None:
    made = streaming(streamed("1", (0.3, 0.3)), streamed("2", (0.2, 0.3), right=True), streamed("2"), streamed("2"))
    # .6 is not below .6. Two earlier steps were probed: four tokens each.
    assert stop("halt-cot", made) == (3, 30 + 4 + 8)
    assert stop("halt-cot:0.61", made) == (2, 20 + 4 + 4)
    assert stop("halt-cot:0.61:1", made) == (1, 14)
    assert stop("halt-cot:0.61:3", made) == (3, 30 + 4 + 8)
    assert stop("halt-cot:0.1", made) == (4, 40 + 4 + 12)
    assert open_rule("halt-cot", others=RIVALS) == HaltCoT(threshold=0.6, consecutive=2)
    sequential = trace(whole("1", (0.6,)), whole("2", (0.5,)), whole("2", (0.0,)), whole("2", (0.0,)))
    assert stop("halt-cot", sequential) == (3, 18)
    broken = streaming(streamed("1"), streamed("1", (2.0,)), streamed("1"), streamed("1"), streamed("1"))
    assert stop("halt-cot", broken)[0] == 4


def test_halt_cot_takes_the_softmax_over_the_candidates() -> None:
    """Token entropies along the sampled answer are only an estimate of it."""
    even: dict[str, float] = {"A": -1.0, "B": -1.0}
    sharp: dict[str, float] = {"A": -0.01, "B": -9.0}
    unsure = streaming(*[streamed("A", (0.0,), extra={"candidates": {**even}})] * 3)
    sure = streaming(*[streamed("A", (3.0,), extra={"candidates": {**sharp}})] * 3)
    # Two equally likely candidates are one bit.
    assert [stop(f"halt-cot:{bits}", unsure)[0] for bits in (0.6, 1.01)] == [3, 2]
    assert stop("halt-cot", sure)[0] == 2
    rows = streaming(*[streamed("A", (3.0,), extra={"top_logprobs": [[-0.01, -9.0], [-1.0, -1.0]]})] * 3)
    named = streaming(*[streamed("A", (3.0,), extra={"top_logprobs": [{"A": -0.01, "B": -9.0}]})] * 3)
    assert stop("halt-cot", rows)[0] == stop("halt-cot", named)[0] == 2
    rule = HaltCoT()
    assert caveat(rule, unsure) is None
    assert "approximation" in str(caveat(rule, streaming(streamed("A"))))


def test_no_rule_stops_where_there_is_no_answer() -> None:
    made = streaming(*[streamed(None, (0.0,))] * 30, streamed("1"))
    for name in ("halt-cot", "dynasor:1", "deer", "eat"):
        assert open_rule(name, others=RIVALS).replay(made).early is False


def test_dynasor_needs_equal_answers_without_hesitation() -> None:
    same = [streamed("7") for _ in range(5)]
    assert stop("dynasor", streaming(*same)) == (3, 30 + 4 + 8)
    assert stop("dynasor:2", streaming(*same)) == (2, 20 + 4 + 4)
    unsure = [same[0], streamed("7", text="Wait, 7"), *same]
    assert stop("dynasor", streaming(*unsure))[0] == 5
    # Words that only contain one of hesitation are none.
    calm = [same[0], streamed("7", text="known: 7"), *same]
    assert stop("dynasor", streaming(*calm))[0] == 3
    assert stop("dynasor:2", trace(*[whole("7", (0.0,))] * 3)) == (2, 12)


def test_dynasor_sees_hesitation_after_the_answer() -> None:
    doubtful = replace(
        streamed("7"),
        probe=Probe(
            answer="7",
            correct=True,
            tokens=4,
            text="7}. Wait",
            token_texts=("7", "}", ".", " Wait"),
            entropies=(0.0,) * 4,
            logprobs=(0.0,) * 4,
        ),
    )
    assert stop("dynasor:2", streaming(doubtful, doubtful, doubtful))[0] == 3
    assert stop("dynasor:2", streaming(streamed("7"), streamed("7"), doubtful))[0] == 2


@pytest.mark.parametrize("equal", [("1/2", "0.5"), ("1,000", "1000"), ("\\frac{1}{2}", ".5"), ("50%", "1/2")])
def test_dynasor_compares_answers_by_value(equal: tuple[str, str]) -> None:
    first, second = equal
    assert stop("dynasor:2", streaming(streamed(first), streamed(second), streamed("9")))[0] == 2


@pytest.mark.parametrize("other", [("1/2", "1/3"), ("x", "y"), ("1e999999999", "2e999999999"), ("1/0", "2/0")])
def test_dynasor_keeps_different_answers_apart(other: tuple[str, str]) -> None:
    first, second = other
    assert stop("dynasor:2", streaming(streamed(first), streamed(second), streamed("9")))[0] == 3


def trial(*probabilities: float, text: str = "12", texts: tuple[str, ...] | None = None) -> Trace:
    """A trial answer with these probabilities, then one more step."""
    one = streamed(text, (0.0,) * len(probabilities))
    assert one.probe is not None
    logprobs = tuple(math.log(value) for value in probabilities)
    return streaming(replace(one, probe=replace(one.probe, logprobs=logprobs, token_texts=texts)), streamed("9"))


def test_deer_takes_the_arithmetic_mean_without_the_first_token() -> None:
    # The geometric mean of .99 and .81 is .8955, the arithmetic one .9; the first token does not count.
    made = trial(0.1, 0.99, 0.81)
    assert [stop(f"deer:{bound}", made)[0] for bound in (0.899, 0.901)] == [1, 2]
    assert stop("deer:0.5", trial(0.999))[0] == 2
    assert stop("deer", trial(0.1, 0.96))[0] == 1
    # The cue is not the answer: the trial's first token is already left out.
    cued = trial(0.1, 0.1, 0.96, text="Answer: 12", texts=("Answer", ": ", "12"))
    assert stop("deer", cued)[0] == 1


def test_deer_pays_for_the_final_answer_that_it_generates_again() -> None:
    made = trial(0.1, 0.96)
    # Ten tokens of thought, the trial of four, and as many again for the final answer.
    assert stop("deer", made) == (1, 10 + 4 + 4)
    assert stop("deer:0.99", made) == (2, 20 + 4 + 4)
    assert "greedy" in str(caveat(open_rule("deer", others=RIVALS), made))


def test_eat_waits_for_its_warm_up_and_for_the_variance_to_settle() -> None:
    steady = streaming(*[streamed("1", (0.5,))] * 30)
    # Twenty steps of warm-up; one token shows the distribution, so each earlier look costs one.
    assert stop("eat", steady) == (21, 21 * 10 + 4 + 20)
    assert Eat(weight=0.5).replay(steady).step == 9
    restless = streaming(*[streamed("1", (float(number % 2),)) for number in range(30)])
    assert stop("eat", restless)[0] == 30
    assert stop("eat:9", restless)[0] == 21
    settling = streaming(*restless.steps, *restless.steps, *[streamed("1", (0.0,))] * 90)
    mean = variance = 0.0
    expected = 0
    for number, made in enumerate(settling.steps, 1):
        assert made.probe is not None
        bits = (made.probe.entropies or (9.0,))[0]
        mean = bits if number == 1 else 0.9 * mean + 0.1 * bits
        variance = 0.9 * variance + 0.1 * (bits - mean) ** 2
        if not expected and number > 40 and variance < 1e-4:
            expected = number
    assert 60 < expected < 150
    assert Eat(variance=1e-4, weight=0.1).replay(settling).step == expected


def test_eat_does_not_apply_to_traces_that_end_before_its_first_stop() -> None:
    rule = open_rule("eat", others=RIVALS)
    assert "more than 21 steps" in str(not_applicable(rule, 21))
    assert not_applicable(rule, 22) is None
    assert not_applicable(HaltCoT(), 1) is None
    shown = evaluate([streaming(*[streamed("1", right=True)] * 4)] * 2, rules="eat,dynasor", draws=2, resamples=5)
    assert set(shown.rules) == {"dynasor:3"}
    assert "at most 4" in shown.missing["eat:0.001"]


@pytest.mark.parametrize("name", ["halt-cot", "dynasor:1", "deer", "eat"])
def test_thoughts_that_were_all_cut_lack_no_field(name: str) -> None:
    """One such problem once kept the rule from being replayed on any."""
    cut = replace(step(0.1, answer=None, correct=None, text="<think>so"), token_texts=("<think>so",))
    assert stop(name, trace(cut, cut)) == (2, 2)


@pytest.mark.parametrize(
    ("name", "made", "field"),
    [
        ("halt-cot", trace(step(0.1), step(0.1)), "the text of each token"),
        ("deer", trace(replace(step(0.1), token_texts=("4",)), step(0.1)), "the end of the thought"),
        ("eat", streaming(step(0.1), step(0.1)), "probed answer"),
        ("deepconf", trace(step(0.1)), "top_logprobs"),
        ("deepconf", streaming(streamed("1"), streamed("1")), "whole samples"),
    ],
)
def test_what_is_not_recorded_is_named(name: str, made: Trace, field: str) -> None:
    with pytest.raises(MissingField, match=field) as raised:
        open_rule(name, others=RIVALS).replay(made)
    assert raised.value.rule.startswith(name)


@pytest.mark.parametrize(("name", "lacking"), [("halt-cot", "entropies"), ("deer", "logprobs"), ("dynasor", "text")])
def test_a_probe_without_the_signal_is_named(name: str, lacking: str) -> None:
    full = Probe(answer="1", correct=True, tokens=4, text="1", entropies=(0.0,), logprobs=(0.0,))
    bare = {
        "entropies": replace(full, entropies=None),
        "logprobs": replace(full, logprobs=None),
        "text": replace(full, text=None),
    }
    made = streaming(replace(streamed("1"), probe=bare[lacking]), streamed("1"))
    with pytest.raises(MissingField, match="every answer"):
        open_rule(name, others=RIVALS).replay(made)


@pytest.mark.parametrize(
    "name",
    [
        "deer:x",
        "deer:-1",
        "deer:inf",
        "halt-cot::2",
        "halt-cot:1:0",
        "halt-cot:1:x",
        "dynasor:0",
        "dynasor:1.5",
        "dynasor:3:1",
        "deer:none",
        "deer:95",
        "es-cot:10:5",
        "es-cot:1e300",
        "code-stop:1.1",
        "eat:0.1:0",
        "eat:0.1:1e-320",
        "leash:0:0",
        "dear",
    ],
)
def test_unknown_rules_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="rule"):
        open_rule(name, others=RIVALS)


def test_a_setting_that_is_refused_is_named_with_the_whole_rule() -> None:
    with pytest.raises(InputError, match=r"leash:0:0 needs a whole number .*, not '0' \(for example leash:0\)"):
        open_rule("leash:0:0", others=RIVALS)


@pytest.mark.parametrize("rule", [rule for grid in GRIDS.values() for rule in grid], ids=lambda rule: rule.name)
def test_the_name_of_a_tuned_rule_opens_the_same_rule(rule: FirstPassage) -> None:
    assert open_rule(rule.name, others=RIVALS) == rule


@given(
    rule=st.one_of(
        st.builds(Eat, st.floats(0, 10), st.floats(1e-3, 1)),
        st.builds(EsCot, st.integers(1, 99), st.floats(0, 1)),
        st.builds(CodeStop, st.floats(0, 1), st.floats(0, math.inf), st.floats(0, 1), st.integers(1, 9)),
        st.builds(Leash, st.floats(0, 9), st.none() | st.integers(1, 10**7)),
        st.builds(HaltCoT, st.floats(0, 9), st.integers(1, 9)),
    )
)
def test_a_name_holds_all_settings(rule: FirstPassage) -> None:
    assert open_rule(rule.name, others=RIVALS) == rule


def test_settings_that_are_the_authors_are_not_in_the_name() -> None:
    names = ("eat:0.001", "es-cot:10", "code-stop:0.9:2", "leash:0")
    assert tuple(RIVALS[name.partition(":")[0]]("").name for name in names) == names
    assert Leash(0.05, limit=None).name == "leash:0.05:none"
    assert CodeStop(0.9, math.inf).name == "code-stop:0.9:none"


def test_rules_that_need_a_live_model_are_named_with_the_command_that_runs_them() -> None:
    everything = evaluate(population(40), draws=2, resamples=20)
    named = evaluate(population(40), rules="all-steps,calm", draws=2, resamples=20)
    assert LIVE.keys() <= everything.missing.keys()
    assert set(named.missing) == {"calm"}
    declared = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    backends = declared["project"]["entry-points"]["justenough.backends"]
    for name, needed in LIVE.items():
        assert f"--model {name}:" in needed
        assert f"{name}: not replayed, {needed}" in evaluation_text(everything)
        module, _, function = backends[name].partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_evaluate_shows_every_rival_or_the_field_that_it_lacks() -> None:
    shown = evaluate(population(40), draws=2, resamples=20)
    assert {name.partition(":")[0] for name in (*shown.rules, *shown.missing)} >= {*RIVALS, *FITTED}
    voted = [
        trace(*[sample("1", (5.0, 5.0), right=True)] * 3, id=str(at), signal=replace(SIGNAL, top_k=2))
        for at in range(40)
    ]
    shown = evaluate(voted, rules="deepconf:4", draws=2, resamples=20)
    # The recorded answers are wrong, the vote is right.
    assert (shown.accuracy_full, shown.rules["deepconf:4"].accuracy) == (0.0, 1.0)
