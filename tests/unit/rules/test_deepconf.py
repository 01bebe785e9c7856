"""DeepConf's vote, its bar and its tokens, counted by hand."""

from __future__ import annotations

import math
from dataclasses import replace

from justenough.rules.deepconf import DeepConf
from tests.builders import trace
from tests.unit.rules.recorded import sample


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


def test_deepconf_leaves_out_entries_without_any_probability() -> None:
    cut = [
        replace(one, top_logprobs=((-4.0, -4.0, -math.inf),) * 2) for one in [sample("1", (4.0, 4.0), right=True)] * 2
    ]
    whole = [sample("1", (4.0, 4.0), right=True)] * 2
    assert DeepConf(warmup=1).replay(trace(*cut)) == DeepConf(warmup=1).replay(trace(*whole))
