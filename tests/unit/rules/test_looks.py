"""What rules see as columns: runs of answers, what is lacking, and parts of the problems."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from justenough.rules.dynamics import PLATEAU, Leash
from justenough.rules.elicited import LACKING
from justenough.rules.looks import agreeing, in_a_row, looks_of, passage
from justenough.rules.quantities import LOGPROB, MEAN_BITS, TRIAL
from justenough.rules.rivals import AnswerConvergence, Deer, Dynasor
from justenough.rules.rules import MissingField
from tests.builders import step, trace
from tests.unit.rules.recorded import streamed, streaming, whole


def test_runs_are_counted_up_to_each_checkpoint() -> None:
    held = np.array([[True, True, False, True], [False, True, True, True]])
    assert in_a_row(held).tolist() == [[1, 2, 0, 1], [0, 1, 2, 3]]
    codes = np.array([[0, 0, -1, -1, 0, 1, 1, 1]])
    assert agreeing(codes).tolist() == [[1, 2, 0, 0, 1, 1, 2, 3]]


def test_problems_of_unequal_length_are_cut_out_with_all_that_is_seen() -> None:
    made = [streaming(*[streamed(text, (0.5,)) for text in texts]) for texts in ("11", "1", "1223")]
    looks = looks_of(made, [MEAN_BITS])
    assert looks.lengths.tolist() == [2, 1, 4]
    assert looks.answers[2].tolist() == [0, 1, 1, 2]
    # Nothing is read off the last answer.
    assert np.isnan(looks.values[MEAN_BITS][0, 1])
    part = looks.rows(np.array([2, 0]))
    assert part.lengths.tolist() == [4, 2]
    assert part.spent[:, 0].tolist() == [14, 14]
    assert part.before_last.tolist() == [[True, True, True, False], [True, False, False, False]]
    assert part.recorded.sum() == 6


def test_what_is_lacking_counts_only_up_to_the_stop() -> None:
    sure, bare = streamed("1", (0.0, 0.0)), replace(streamed("1"), probe=None)
    late = streaming(sure, bare, sure)
    assert Deer().replay(late).step == 1
    with pytest.raises(MissingField, match="probed answer"):
        Dynasor().replay(late)
    looks = looks_of([late, streaming(bare, sure, sure)], [TRIAL, LOGPROB])
    with pytest.raises(MissingField, match="probed answer"):
        passage(Deer(), looks)
    assert looks.values[TRIAL][1, 0] == LACKING


def test_each_quantity_names_what_it_lacks_itself() -> None:
    """In completions without token texts no answer can be read, but LEASH reads none."""
    looks = looks_of([trace(step(0.1), step(0.1))], [TRIAL, PLATEAU])
    with pytest.raises(MissingField, match="text of each token"):
        passage(Deer(), looks)
    with pytest.raises(MissingField, match="top log-probabilities"):
        passage(Leash(), looks)


def test_a_quantity_that_no_rule_can_use_is_not_read_again() -> None:
    complete = trace(whole("1", (0.1,)), whole("1", (0.1,)))
    looks = looks_of([trace(step(0.1), step(0.1)), complete], [LOGPROB])
    assert (looks.values[LOGPROB][1] == LACKING).all()
    assert np.isfinite(looks_of([complete], [LOGPROB]).values[LOGPROB][0, 0])


def test_a_stream_s_answers_are_those_of_its_probes() -> None:
    """In traces of other tools a step may have another answer than its probe, or none."""
    steps = [replace(streamed(text), answer=other) for text, other in (("1", "7"), ("2", "7"), ("2", None), ("3", "7"))]
    foreign = streaming(*steps)
    assert looks_of([foreign], []).answers.tolist() == [[0, 1, 1, 2]]
    assert AnswerConvergence(2).replay(foreign).step == Dynasor(2).replay(foreign).step == 3
