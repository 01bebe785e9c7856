"""Rules for live runs: their names, and the distance of their looks."""

from __future__ import annotations

import pytest

from justenough.errors import InputError
from justenough.rules.live import LiveRule, Watch, joined, open_live
from justenough.rules.rivals import AnswerConvergence, Deer
from justenough.rules.rules import FixedSteps
from tests.builders import step
from tests.unit.rules.recorded import streamed, streaming


@pytest.mark.parametrize(
    ("name", "spacing", "rule"),
    [
        ("deer:0.9", None, LiveRule(Deer(0.9))),
        ("deer@4", None, LiveRule(Deer(), 4, 4)),
        ("deer", "4", LiveRule(Deer(), 4, 4)),
        ("deer@2-6", "4", LiveRule(Deer(), 6, 2)),
        ("always-3-steps", "4", LiveRule(FixedSteps(3), 4, 4)),
    ],
)
def test_a_name_opens_a_rule_with_its_distance(name: str, spacing: str | None, rule: LiveRule) -> None:
    assert open_live(name, spacing) == rule
    assert open_live(rule.name, spacing) == rule


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("oracle", "cannot stop a live run"),
        ("deepconf", "cannot stop a live run"),
        ("vote", "unknown rule"),
        ("entropy-mean", "is a gate"),
        ("decider", "is a gate"),
        ("deer@", "steps apart"),
        ("deer@x", "steps apart"),
        ("deer@0", "every 0 to 0 steps"),
        ("deer@4-2", "every 4 to 2 steps"),
    ],
)
def test_other_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_live(name)


def looks(answers: str, rule: LiveRule) -> list[int]:
    """The steps that are probed, if step k has the k-th answer."""
    watch, probed = Watch(rule, streaming()), []
    for number, answer in enumerate(answers, 1):
        if watch.probes_next:
            probed.append(number)
        watch.take(streamed(answer))
    return probed


def test_looks_are_sparse_while_answers_change_and_dense_once_they_repeat() -> None:
    never = AnswerConvergence(99)
    assert looks("abcdefghijklmnopqrstuvwxyz", LiveRule(never)) == [1, 3, 7, 15, 23]
    assert looks("abcdef" + "g" * 11 + "hijk", LiveRule(never)) == [1, 3, 7, 15, 16, 17, 18, 20]
    assert looks("aaaaaaaaaa", LiveRule(never, 4, 4)) == [4, 8]
    assert looks("abcdefghij", LiveRule(never, 3, 2)) == [2, 5, 8]


def test_numbers_are_compared_by_value() -> None:
    watch = Watch(LiveRule(AnswerConvergence(99)), streaming())
    for answer in ("a", "b", "1/2", "c", "d", "e", "0.5"):
        watch.take(streamed(answer))
    assert watch.probes_next


def test_without_an_answer_looks_stay_sparse() -> None:
    watch = Watch(LiveRule(AnswerConvergence(99)), streaming())
    for _ in range(7):
        watch.take(streamed(None))
    assert not watch.probes_next


def test_the_replay_pays_for_the_probes_where_it_looked() -> None:
    trace = streaming(*[streamed(answer) for answer in "abcddddd"])
    stopped = LiveRule(AnswerConvergence(2)).replay(trace)
    # It looks at the steps 1, 3 and 7, and then the trace ends.
    assert (stopped.step, stopped.tokens) == (8, 80 + 4 + 3 * 4)
    assert LiveRule(AnswerConvergence(2), 1).replay(trace)[:2] == (5, 50 + 4 + 4 * 4)
    # DEER generates the final answer again.
    assert LiveRule(Deer(0.5), 2, 2).replay(streaming(*[streamed("a", (0.0, 0.0))] * 4))[:2] == (2, 20 + 4 + 4)


def test_steps_since_the_last_look_are_one_step() -> None:
    one = joined([step(0.1, 0.2, text="a"), step(0.3, text="b", answer="7", tokens=5)])
    assert (one.text, one.tokens, one.answer, one.entropies) == ("ab", 7, "7", (0.1, 0.2, 0.3))
    assert joined([step(0.1), step(tokens=2, entropy=0.5)]).entropies is None
