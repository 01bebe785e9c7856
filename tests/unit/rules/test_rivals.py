"""Each rival's stop and its tokens, counted by hand, in both shapes; what is not recorded is named."""

from __future__ import annotations

import importlib
import math
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from justenough.cli.tables import evaluation_text
from justenough.errors import InputError
from justenough.evaluation import evaluate
from justenough.rules.rivals import LIVE, RIVALS, DeepConf, Eat, HaltCoT, answer_tokens
from justenough.rules.rules import MissingField, open_rule
from justenough.trace import Probe, Step, Trace
from tests.builders import SIGNAL, population, step, trace

NEVER = ("</think>", "Answer", ": ")


def streamed(
    answer: str | None,
    bits: Sequence[float] = (0.0,),
    *,
    sure: float = 1.0,
    text: str | None = None,
    right: bool = False,
) -> Step:
    """Ten tokens of thought and four of elicitation; `sure` is the probability of each token of the answer."""
    probe = Probe(
        answer=answer,
        correct=None if answer is None else right,
        tokens=4,
        text=answer if text is None else text,
        entropies=tuple(bits),
        logprobs=tuple(math.log(sure) for _ in bits),
    )
    return replace(step(0.9, tokens=10, answer=answer, correct=probe.correct), probe=probe)


def streaming(*steps: Step) -> Trace:
    return trace(*steps, shape="streaming")


def whole(answer: str, bits: Sequence[float], *, tail: str = "") -> Step:
    """A completion whose thought has two unsure tokens, then the cue, then one token for each of `bits`."""
    texts = ("<think>", "so", *NEVER, *([answer, tail] if len(bits) == 2 else [answer]))
    entropies = (3.0, 3.0, 0.0, 0.0, 0.0, *bits)
    return replace(
        step(*entropies, answer=answer, text="".join(texts)),
        token_texts=texts,
        logprobs=tuple(-value for value in entropies),
    )


def stop(name: str, made: Trace) -> tuple[int, int]:
    stopped = open_rule(name, others=RIVALS).replay(made)
    return stopped.step, stopped.tokens


def test_the_answer_is_what_stands_after_the_thought_and_its_cue() -> None:
    made = trace(whole("12", (0.25, 0.5), tail="."), step(0.1))
    found = answer_tokens(made, 1, rule="r")
    assert found == ("12", (0.25,), (-0.25,))
    bare = replace(made.steps[0], text="<think>so", token_texts=("<think>", "so"))
    assert answer_tokens(replace(made, steps=(bare, made.steps[0])), 1, rule="r") is None
    assert answer_tokens(replace(made, steps=(replace(made.steps[0], answer=None), step(0.1))), 1, rule="r") is None


def test_halt_cot_sums_the_entropies_along_the_answer() -> None:
    made = streaming(streamed("1", (0.3, 0.3)), streamed("2", (0.2, 0.3), right=True), streamed("2"))
    # Step 1 was probed for its answer: four tokens besides.
    assert stop("halt-cot", made) == (2, 20 + 4 + 4)
    assert stop("halt-cot:0.6", made) == (1, 14)
    assert stop("halt-cot:0.1", made) == (3, 30 + 4 + 8)
    assert HaltCoT(threshold=0.6, consecutive=2).replay(made).step == 2
    assert HaltCoT(threshold=0.5, consecutive=2).replay(made).step == 3
    sequential = trace(whole("1", (0.6,)), whole("2", (0.5,)), whole("2", (0.0,)))
    assert stop("halt-cot", sequential) == (2, 12)


def test_no_rule_stops_where_there_is_no_answer() -> None:
    made = streaming(*[streamed(None, (0.0,))] * 30, streamed("1"))
    for name in ("halt-cot", "dynasor:1", "deer", "eat"):
        assert open_rule(name, others=RIVALS).replay(made).early is False


def test_dynasor_wants_equal_answers_without_hesitation() -> None:
    same = [streamed("7") for _ in range(5)]
    assert stop("dynasor", streaming(*same)) == (3, 30 + 4 + 8)
    assert stop("dynasor:2", streaming(*same)) == (2, 20 + 4 + 4)
    unsure = [same[0], streamed("7", text="Wait, 7"), *same]
    assert stop("dynasor", streaming(*unsure))[0] == 5
    # Words that only contain one of hesitation are none.
    calm = [same[0], streamed("7", text="known: 7"), *same]
    assert stop("dynasor", streaming(*calm))[0] == 3
    assert stop("dynasor:2", trace(*[whole("7", (0.0,))] * 3)) == (2, 12)


def test_deer_takes_the_geometric_mean_of_the_trial_answer() -> None:
    made = streaming(streamed("1", (0.0,) * 2, sure=0.95), streamed("2", (0.0,) * 2, sure=0.96), streamed("3"))
    assert stop("deer", made) == (2, 28)
    assert stop("deer:0.9", made) == (1, 14)
    first = made.steps[0].probe
    assert first is not None
    mixed = replace(made.steps[0], probe=replace(first, logprobs=(math.log(0.99), math.log(0.81))))
    assert stop("deer:0.895", streaming(mixed, *made.steps)) == (1, 14)
    assert stop("deer:0.9", streaming(mixed, *made.steps)) == (2, 28)


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


def sample(answer: str, confidences: Sequence[float], *, right: bool = False) -> Step:
    """One token for each confidence, with two entries that give it."""
    rows = [(-value, -value) for value in confidences]
    made = step(answer="majority", correct=False, top_logprobs=rows)
    return replace(made, extra={"sample": answer, "sample_correct": right})


def test_deepconf_votes_with_the_lowest_groups_weight() -> None:
    # Two against one, but the one is surer than both together.
    made = trace(sample("1", (1.0, 1.0)), sample("1", (1.0, 1.0)), sample("2", (9.0, 9.0), right=True))
    stopped = DeepConf(warmup=3, keep=1.0, window=2).replay(made)
    assert stopped == (3, 6, True, False, False)
    # The dip in the middle is what counts, not the mean.
    dip = trace(sample("1", (4.0, 4.0, 4.0)), sample("2", (9.0, 1.0, 9.0), right=True))
    assert DeepConf(warmup=2, keep=1.0, window=1).replay(dip).correct is False
    assert DeepConf(warmup=2, keep=1.0, window=3).replay(dip).correct is True


def test_deepconf_cuts_weak_samples_short_and_ends_at_consensus() -> None:
    weak = sample("2", (5.0, 5.0, 1.0, 1.0, 5.0, 5.0))
    strong = sample("1", (5.0,) * 6, right=True)
    other = sample("3", (5.0,) * 6)
    made = trace(strong, other, weak, strong, strong, strong)
    rule = DeepConf(warmup=2, window=2, consensus=0.75)
    # The group that falls below the bar of 5 is (5, 1): three tokens are spent on the weak sample, which has no vote.
    assert rule.replay(made) == (5, 6 + 6 + 3 + 6 + 6, True, False, True)
    assert replace(rule, consensus=0.95).replay(made).step == 6
    # With a bar of its own nothing is needed to set it, and the first sample may be all.
    assert DeepConf(bar=4.0, window=2).replay(made) == (1, 6, True, False, True)
    assert DeepConf(bar=6.0, window=2).replay(made).unanswered is True


def test_deepconf_reads_the_confidences_that_a_run_records() -> None:
    rows = sample("1", (4.0, 4.0, 4.0)), sample("2", (9.0, 1.0, 9.0), right=True)
    compact = [replace(one, top_logprobs=None, confidences=(4.0, 4.0, 4.0)) for one in rows[:1]] + [
        replace(rows[1], top_logprobs=None, confidences=(9.0, 1.0, 9.0))
    ]
    for window in (1, 3):
        rule = DeepConf(warmup=2, keep=1.0, window=window)
        assert rule.replay(trace(*compact)) == rule.replay(trace(*rows))
    # Steps that are no votes have their own answers; few of them set the bar by their first half.
    alone = [replace(one, extra={}, answer=str(at), correct=at == 1) for at, one in enumerate(compact)]
    assert DeepConf(window=3).replay(trace(*alone)) == (1, 3, False, False, True)
    assert DeepConf(window=3).replay(trace(*reversed(alone))).correct is True


def test_a_probe_s_cue_is_no_part_of_its_answer() -> None:
    cued = Probe(
        answer="42",
        correct=True,
        tokens=5,
        text="Answer: 42",
        entropies=(9.0, 9.0, 9.0, 0.1, 0.2),
        logprobs=(-9.0, -9.0, -9.0, -0.01, -0.02),
        token_texts=("Answer", ":", " ", "4", "2"),
    )
    made = streaming(replace(streamed("42"), probe=cued), streamed("42"))
    assert answer_tokens(made, 1, rule="r") == ("42", (0.1, 0.2), (-0.01, -0.02))
    assert stop("halt-cot", made)[0] == 1
    assert stop("deer", made)[0] == 1
    # A prompt may have said the cue: then all that was elicited is the answer.
    plain = replace(cued, text=" 42", token_texts=(" 4", "2"), entropies=(0.1, 0.2), logprobs=(-0.01, -0.02))
    assert answer_tokens(streaming(replace(streamed("42"), probe=plain), streamed("42")), 1, rule="r") == (
        "42",
        (0.1, 0.2),
        (-0.01, -0.02),
    )


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


@pytest.mark.parametrize("name", ["deer:x", "deer:-1", "deer:inf", "dynasor:0", "dynasor:1.5", "dear"])
def test_unknown_rules_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="rule"):
        open_rule(name, others=RIVALS)


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
    found = evaluate(population(40), draws=2, resamples=20)
    assert {name.partition(":")[0] for name in found.missing} >= set(RIVALS)
    voted = [
        trace(*[sample("1", (5.0, 5.0), right=True)] * 3, id=str(at), signal=replace(SIGNAL, top_k=2))
        for at in range(40)
    ]
    shown = evaluate(voted, rules="deepconf:4", draws=2, resamples=20)
    # The recorded answers are wrong, the vote is right.
    assert (shown.accuracy_full, shown.rules["deepconf:4"].accuracy) == (0.0, 1.0)


def test_deepconf_leaves_out_entries_without_any_probability() -> None:
    cut = [
        replace(one, top_logprobs=((-4.0, -4.0, -math.inf),) * 2) for one in [sample("1", (4.0, 4.0), right=True)] * 2
    ]
    whole = [sample("1", (4.0, 4.0), right=True)] * 2
    assert DeepConf(warmup=1).replay(trace(*cut)) == DeepConf(warmup=1).replay(trace(*whole))
