"""Votes counted by hand: plain, weighted, of the first N; at equal tokens; what is not recorded is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from justenough.errors import InputError
from justenough.evaluation import evaluate
from justenough.rules.rules import MissingField, open_rule
from justenough.rules.votes import VOTES, Vote, elected, entropy_weights
from justenough.trace import Step
from tests.builders import population, step, trace


def sample(answer: str | None, bits: float, *, right: bool = False, tokens: int = 10) -> Step:
    made = replace(step(bits, answer="majority", correct=False, tokens=tokens), entropies=(bits,) * tokens)
    return replace(made, extra={"sample": answer, "sample_correct": right})


SPLIT = trace(sample("1", 3.0), sample("1", 3.0), sample("2", 0.0, right=True))


def test_weights_halve_at_the_mean_whatever_the_scale() -> None:
    assert entropy_weights([0.0, 1.0, 2.0]) == [1.0, 0.5, pytest.approx(1 / 3)]
    assert entropy_weights([0.0, 1e-6, 2e-6]) == pytest.approx(entropy_weights([0.0, 1.0, 2.0]))
    assert entropy_weights([0.0, 0.0]) == [1.0, 1.0]
    assert entropy_weights([]) == []


def test_the_earliest_wins_a_tie_and_silence_elects_nobody() -> None:
    assert elected(["b", "a", "a", "b"], [1.0] * 4) == "b"
    assert elected([None, "a", "b"], [9.0, 1.0, 1.5]) == "b"
    assert elected([None, None], [1.0, 1.0]) is None


def test_two_unsure_voices_outvote_a_sure_one_only_plainly() -> None:
    # The mean is 2 bits: the unsure weigh 2/5 each, the sure one 1.
    assert Vote().replay(SPLIT) == (3, 30, False, False, False)
    assert Vote(weighted=True).replay(SPLIT) == (3, 30, True, False, False)
    # Fewer samples cost fewer tokens, and both votes the same.
    assert open_rule("vote:2", others=VOTES).replay(SPLIT) == (2, 20, False, False, True)
    assert open_rule("vote-entropy:2", others=VOTES).replay(SPLIT).tokens == 20
    assert open_rule("vote:1", others=VOTES).replay(replace(SPLIT, steps=SPLIT.steps[::-1])).correct is True


def test_nobody_answering_is_unanswered() -> None:
    silent = trace(sample(None, 1.0), sample(None, 1.0, right=True))
    for rule in (Vote(), Vote(weighted=True)):
        assert rule.replay(silent) == (2, 20, False, True, False)


def test_what_is_not_recorded_is_named() -> None:
    with pytest.raises(MissingField, match="each sample's own answer"):
        Vote().replay(trace(step(0.1), step(0.1)))
    with pytest.raises(MissingField, match="entropies of every sample"):
        Vote(weighted=True).replay(replace(SPLIT, steps=(*SPLIT.steps, replace(SPLIT.steps[0], entropies=None))))
    for name in ("vote:0", "vote-entropy:x", "vote:²", "vote:" + "9" * 5000):
        with pytest.raises(InputError, match=f"rule '{name}' has no whole number"):
            open_rule(name, others=VOTES)


def test_they_stand_among_the_rules_of_runs_that_voted() -> None:
    voted = [replace(SPLIT, id=str(at)) for at in range(40)]
    shown = evaluate(voted, draws=2, resamples=20).rules
    assert (shown["vote"].accuracy, shown["vote-entropy"].accuracy) == (0.0, 1.0)
    assert shown["vote"].tokens == shown["vote-entropy"].tokens
    # Of other runs they are not even missed.
    other = evaluate(population(30), draws=2, resamples=20)
    assert not {"vote", "vote-entropy"} & {*other.rules, *other.missing}
