"""What every stopping rule promises: see `justenough.rules.rules.Rule`. A rule that enters a registry enters here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from justenough.calibration.thresholds import METHODS
from justenough.errors import SignalMismatch
from justenough.evaluation import table_of
from justenough.gate import DECIDES, Decide, GateSettings
from justenough.rules.deepconf import DeepConf
from justenough.rules.dynamics import EsCot, Leash
from justenough.rules.fitted import ConformalThinking, Cusum, LearnStop
from justenough.rules.looks import FirstPassage, looks_of, passage
from justenough.rules.rivals import GRIDS, RIVALS, Eat
from justenough.rules.rules import BASELINES, EntropyGate, MissingField, Oracle, Rule, Stopped, open_rule
from justenough.rules.votes import VOTES
from justenough.signal.signal import Signal
from justenough.trace import SHAPES, Probe, Shape, Step, Trace
from tests.builders import SIGNAL, population, step, trace

OTHERS: Final = MappingProxyType({**RIVALS, **VOTES})
NAMED: Final = {"fixed-budget": "fixed-budget:12", "vote": "vote:2", "vote-entropy": "vote-entropy:2"}
"""Names that need a number, or without one would take all steps."""
FITTED: Final = table_of(population(2000, seed=4), SIGNAL).examples()


def gates() -> list[Rule]:
    """The entropy gate with each threshold, deciding on the first step and on every one."""
    made: list[Rule] = []
    for method, make in METHODS.items():
        threshold = make().fit(FITTED).threshold
        assert threshold is not None
        for decide in DECIDES:
            gate = GateSettings(threshold=threshold, signal=SIGNAL, decide=decide, max_steps=99)
            made.append(EntropyGate(f"entropy-{method}", gate))
    return made


REGISTERED: Final = [
    open_rule(NAMED.get(name, name), decide=decide, others=OTHERS)
    for name in (*BASELINES, *OTHERS)
    for decide in (DECIDES if name == "oracle" else ("first",))
]
EIGHT: Final = (0.0,) * 8
LEARNED: Final = LearnStop(EIGHT, (1.0,) * 8, (2.0, 0.5, 0.0, 1.0, -1.0, 0.5, 0.1, 1.0, -0.01), bound=0.9, steps=4)
# Their defaults wait for more steps or tokens than a test holds.
SHORT: Final[list[Rule]] = [Eat(variance=9.0, weight=0.9), EsCot(jump=1), Leash(limit=3), DeepConf(bar=2.0, window=3)]
FIXED: Final[list[FirstPassage]] = [
    Cusum((0.3, 0.6), (2.0, 0.0, -2.0)),
    LEARNED,
    ConformalThinking(0.9, (0.5, 0.01, 0.0)),
]
"""Fitted rules, with numbers that no labels gave."""
RULES: Final[list[Rule]] = [*REGISTERED, *gates(), *SHORT, *FIXED]
ASKING: Final = ("answer-convergence", "halt-cot", "dynasor", "deer", "es-cot", "code-stop", *(r.head for r in FIXED))
PROBES: Final = MappingProxyType({**dict.fromkeys(ASKING), "eat": 1})
"""Rules that elicit an answer at each step of a stream, and how many of its tokens they need where not all."""
REPEATED: Final = ("deer", "code-stop")
"""Rules that generate the final answer again."""
VOTED: Final = ("vote", "vote-entropy", "deepconf")
"""Rules whose answer is elected."""


def head(rule: Rule) -> str:
    return rule.name.partition(":")[0]


def takes(rule: Rule, shape: Shape) -> bool:
    return head(rule) not in (VOTED if shape == "streaming" else ("leash",))


every_rule = pytest.mark.parametrize(
    ("rule", "shape"), [(rule, shape) for rule in RULES for shape in SHAPES if takes(rule, shape)], ids=str
)
Promise = Callable[[Rule, Trace, st.DataObject], None]


def promised(promise: Promise) -> Callable[[Shape], None]:
    """A promise as a test: kept by every rule on any trace of a shape. Traces are drawn once for all rules."""

    @settings(max_examples=30, deadline=None)
    @given(data=st.data())
    def test(shape: Shape, data: st.DataObject) -> None:
        found = drawn(data, shape)
        for rule in RULES:
            if takes(rule, shape):
                note(f"{rule}")
                promise(rule, found, data)

    named: Callable[[Shape], None] = pytest.mark.parametrize("shape", SHAPES)(test)
    named.__doc__ = promise.__doc__
    return named


def made(shape: Shape, answer: str | None, bits: list[float], surety: float, *, tokens: int = 0) -> Step:
    """A step with everything recorded that a rule may ask for; `tokens` more than are shown belong to its probe."""
    entropies, logprobs = tuple(bits), tuple(-value for value in bits)
    said = tuple(f"{answer or 'nothing'}"[:1] or "x" for _ in bits)
    if shape == "streaming":
        probe = Probe(
            answer=answer,
            correct=None,
            tokens=len(bits) + tokens,
            text="".join(said),
            token_texts=said,
            entropies=entropies,
            logprobs=logprobs,
        )
        rows = [(-value, *[math.log(max(-math.expm1(-value), 1e-22) / 19)] * 19) for value in bits]
        thought = step(*bits, top_logprobs=rows, answer=answer, text="wait")
        return replace(thought, probe=probe, confidences=(surety,) * len(bits))
    texts = ("<think>", "</think>", "Answer: ", *said) if answer is not None else ("<think>", "so", " so", *said)
    return replace(
        step(*[bits[0]] * 3, *bits, answer=answer, correct=None, text="".join(texts)),
        token_texts=texts,
        confidences=(surety,) * len(texts),
        logprobs=(-bits[0],) * 3 + logprobs,
        extra={"sample": answer},
        probe=Probe(answer=answer, correct=None, tokens=tokens) if tokens else None,
    )


def steps(shape: Shape) -> st.SearchStrategy[Step]:
    bits = st.lists(st.floats(0, 1.2), min_size=1, max_size=4)
    answers = st.sampled_from(["1", "1", "2", None])
    return st.builds(made, st.just(shape), answers, bits, st.floats(0.5, 5), tokens=st.integers(0, 3))


def graded(of: Trace, target: str) -> Trace:
    """The trace with every answer graded against a target."""

    def grade(step: Step) -> Step:
        correct = None if step.answer is None else step.answer == target
        probe = None if step.probe is None else replace(step.probe, correct=correct)
        sample = {**step.extra, "sample_correct": correct} if step.extra else step.extra
        return replace(step, correct=correct, probe=probe, extra=sample)

    return replace(of, steps=tuple(grade(step) for step in of.steps))


def drawn(data: st.DataObject, shape: Shape, *, least: int = 1, most: int = 8) -> Trace:
    found = data.draw(st.lists(steps(shape), min_size=least, max_size=most))
    return graded(trace(*found, shape=shape), data.draw(st.sampled_from(["1", "2"])))


def replayed(rule: Rule, of: Trace) -> Stopped:
    """The gate's settings take the shape of what it gates."""
    if isinstance(rule, EntropyGate):
        rule = replace(rule, settings=replace(rule.settings, shape=of.shape))
    return rule.replay(of)


def sure(shape: Shape) -> Trace:
    """Eight steps, all of them certain of one answer."""
    return graded(trace(*[made(shape, "1", [0.0, 0.0], 3.0)] * 8, shape=shape), "1")


@pytest.mark.parametrize("rule", REGISTERED, ids=str)
def test_its_name_opens_it(rule: Rule) -> None:
    decide: Decide = rule.decide if isinstance(rule, Oracle) else "first"
    assert open_rule(rule.name, decide=decide, others=OTHERS) == rule


@every_rule
def test_it_stops_early_where_the_model_is_sure(rule: Rule, shape: Shape) -> None:
    """Without this the promises below might be kept by never stopping."""
    waits = head(rule) == "all-steps" or rule in [open_rule(name, others=OTHERS) for name in ("eat", "leash")]
    # Equal answers throughout are one run, which is longer than none.
    waits = waits or head(rule) == "es-cot"
    assert replayed(rule, sure(shape)).early is not waits


def answered_again(rule: Rule, stopped: Stopped, found: Trace) -> int:
    """Some rules generate the final answer again where they stop a stream."""
    probe = found.steps[stopped.step - 1].probe
    paid = head(rule) in REPEATED and found.shape == "streaming" and stopped.early
    return probe.tokens if paid and probe is not None else 0


@promised
def test_it_stops_at_the_last_step_at_the_latest_and_always_alike(
    rule: Rule, found: Trace, data: st.DataObject
) -> None:
    stopped = replayed(rule, found)
    assert 1 <= stopped.step <= len(found.steps)
    assert stopped.early is (stopped.step < len(found.steps))
    assert replayed(rule, found) == stopped


@promised
def test_its_tokens_are_those_of_the_steps_that_it_ran_and_of_its_probes(
    rule: Rule, found: Trace, data: st.DataObject
) -> None:
    stopped = replayed(rule, found)
    ran = found.steps[: stopped.step]
    probes = [0 if step.probe is None else step.probe.tokens for step in ran]
    # A completion's own probe was always taken, a stream is probed only by rules that look there.
    most = PROBES.get(head(rule), 0) if found.shape == "streaming" else None
    spent = sum(step.tokens for step in ran) + probes[-1]
    spent += sum(tokens if most is None else min(most, tokens) for tokens in probes[:-1])
    if head(rule) == "deepconf":
        # A sample may be cut short; `deepconf:0` cuts none.
        assert 0 < stopped.tokens <= spent
        whole = replayed(open_rule("deepconf:0", others=OTHERS), found)
        assert whole.tokens == found.tokens_to(whole.step)
    else:
        assert stopped.tokens == spent + answered_again(rule, stopped, found)


@promised
def test_its_outcome_is_that_of_the_answer_it_stopped_with(rule: Rule, found: Trace, data: st.DataObject) -> None:
    stopped = replayed(rule, found)
    assert not (stopped.correct and stopped.unanswered)
    last = found.steps[stopped.step - 1]
    if head(rule) in VOTED:
        assert not stopped.correct or any(step.is_correct for step in found.steps[: stopped.step])
    else:
        assert (stopped.correct, stopped.unanswered) == (last.is_correct, last.is_unanswered)
    if head(rule) in PROBES and stopped.early:
        assert last.answer is not None


@promised
def test_it_never_looks_at_what_is_right(rule: Rule, found: Trace, data: st.DataObject) -> None:
    if head(rule) == "oracle":
        return
    one, other = (replayed(rule, graded(found, target)) for target in ("1", "2"))
    assert (one.step, one.tokens, one.unanswered) == (other.step, other.tokens, other.unanswered)
    assert not (one.correct and other.correct)


@promised
def test_it_never_looks_at_steps_that_it_did_not_run(rule: Rule, found: Trace, data: st.DataObject) -> None:
    if head(rule) == "oracle":
        # It knows whether the last answer is right.
        return
    stopped = replayed(rule, found)
    left = len(found.steps) - stopped.step
    others = drawn(data, found.shape, least=left, most=left).steps if left else ()
    assert replayed(rule, replace(found, steps=(*found.steps[: stopped.step], *others))) == stopped
    if rule != open_rule("deepconf", others=OTHERS):
        # DeepConf's warm-up is half of the samples, where there are few.
        ran = replace(found, steps=found.steps[: stopped.step])
        again = answered_again(rule, stopped, found)
        assert replayed(rule, ran) == stopped._replace(early=False, tokens=stopped.tokens - again)


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_many_problems_together_stop_as_each_alone(shape: Shape, data: st.DataObject) -> None:
    """The columns of problems with unequal numbers of checkpoints."""
    found = [drawn(data, shape) for _ in range(3)]
    rules = [*RULES, *(grid[0] for grid in GRIDS.values())]
    passages = [rule for rule in rules if isinstance(rule, FirstPassage) and takes(rule, shape)]
    looks = looks_of(found, [quantity for rule in passages for quantity in rule.reads])
    for rule in passages:
        note(f"{rule}")
        stops, tokens = passage(rule, looks)
        alone = [rule.replay(one) for one in found]
        assert stops.tolist() == [stopped.step - 1 for stopped in alone]
        assert tokens.tolist() == [stopped.tokens for stopped in alone]


STRIPS: Final[Mapping[str, Callable[[Step], Step]]] = MappingProxyType(
    {
        "entropies": lambda one: replace(
            one, entropies=None, top_logprobs=None, probe=bare(one, lambda p: replace(p, entropies=None))
        ),
        "logprobs": lambda one: replace(one, logprobs=None, probe=bare(one, lambda p: replace(p, logprobs=None))),
        "token_texts": lambda one: replace(
            one, token_texts=None, probe=bare(one, lambda p: replace(p, token_texts=None, text=None))
        ),
        "confidences": lambda one: replace(one, confidences=None),
        "probe": lambda one: replace(one, probe=None),
        "sample": lambda one: replace(one, extra={}),
        "text": lambda one: replace(one, text=""),
    }
)
"""Field → a step without it, and without it in its probe."""


def bare(one: Step, strip: Callable[[Probe], Probe]) -> Probe | None:
    return None if one.probe is None else strip(one.probe)


def without(field: str, found: Trace) -> Trace:
    return replace(found, steps=tuple(map(STRIPS[field], found.steps)))


_THOUGHT: Final = ("token_texts", "text")
"""What tells the answer of a completion from its thought."""
NEEDS: Final = MappingProxyType(
    {
        ("halt-cot", "sequential"): ("entropies", *_THOUGHT),
        ("halt-cot", "streaming"): ("entropies", "probe"),
        ("dynasor", "sequential"): _THOUGHT,
        ("dynasor", "streaming"): ("token_texts", "probe"),
        ("deer", "sequential"): ("logprobs", *_THOUGHT),
        ("deer", "streaming"): ("logprobs", "probe"),
        ("eat", "sequential"): ("entropies", *_THOUGHT),
        ("eat", "streaming"): ("entropies", "probe"),
        ("deepconf", "sequential"): ("confidences",),
        ("answer-convergence", "streaming"): ("probe",),
        ("es-cot", "streaming"): ("probe",),
        ("code-stop", "sequential"): ("logprobs", *_THOUGHT),
        ("code-stop", "streaming"): ("logprobs", "probe"),
        ("leash", "streaming"): ("entropies",),
        ("cusum", "sequential"): ("entropies", *_THOUGHT),
        ("cusum", "streaming"): ("entropies", "probe"),
        ("learn-stop", "sequential"): ("entropies", "logprobs", *_THOUGHT),
        ("learn-stop", "streaming"): ("entropies", "logprobs", "probe", "text"),
        ("conformal-thinking", "sequential"): ("logprobs", *_THOUGHT),
        ("conformal-thinking", "streaming"): ("logprobs", "probe"),
        ("vote", "sequential"): ("sample",),
        ("vote-entropy", "sequential"): ("sample", "entropies"),
    }
)
"""Rule and shape → what it cannot be replayed without."""


@every_rule
def test_what_it_needs_and_the_trace_lacks_is_named(rule: Rule, shape: Shape) -> None:
    for field in NEEDS.get((head(rule), shape), ()):
        with pytest.raises(MissingField) as raised:
            replayed(rule, without(field, sure(shape)))
        assert (raised.value.rule, bool(raised.value.field)) == (rule.name, True)
        assert raised.value.field in str(raised.value)


@promised
def test_a_lack_is_never_passed_over_in_silence(rule: Rule, found: Trace, data: st.DataObject) -> None:
    """Without a field a rule decides as with it, or says what is missing; the gate, whose safe side it is, goes on."""
    stopped = replayed(rule, found)
    # A budget and the oracle count what was spent: without its probes a run is another one.
    fields = sorted(STRIPS.keys() - ({"probe"} if head(rule) in ("fixed-budget", "oracle") else set()))
    field = data.draw(st.sampled_from(fields))
    try:
        lacking = replayed(rule, without(field, found))
    except MissingField:
        assert field in NEEDS[head(rule), found.shape]
    else:
        goes_on = isinstance(rule, EntropyGate) and field == "entropies"
        assert lacking.step == (len(found.steps) if goes_on else stopped.step)


@pytest.mark.parametrize("gate", gates(), ids=str)
def test_a_gate_refuses_bits_of_another_kind(gate: Rule) -> None:
    with pytest.raises(SignalMismatch, match="top_k"):
        gate.replay(replace(sure("sequential"), signal=replace(Signal(), top_k=5)))
