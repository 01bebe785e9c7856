"""Layer exits on a real model: the published figures come from the committed outputs and traces."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.timing import RESULTS
from justenough.stats import change_interval
from justenough.stats.learn_then_test import certify
from justenough.stats.text import percent, points
from justenough.trace.files import read_traces

FOLDER = RESULTS / "real" / "exits"
PAGE = (RESULTS.parents[1] / "docs/explanation/systems.md").read_text()
LABELS = {
    "softmax": "softmax response",
    "saturation": "hidden-state saturation",
    "classifier": "early classifier",
    "entropy": "entropy (DeeBERT)",
}


@pytest.mark.parametrize("measure", LABELS)
def test_a_certificate_follows_from_its_counts(measure: str) -> None:
    output = json.loads((FOLDER / f"{measure}.json").read_text())
    n, tried = output["problems"], output["tried"]
    losses = [(one["threshold"], (np.arange(n) < one["harmed"]).astype(np.float64)) for one in tried]
    again, published = certify(losses, level=0.1, confidence=0.95), output["certificate"]
    assert again is not None
    assert again.setting == published["setting"]
    passed, failed = tried[-2:]
    assert (passed["threshold"], passed["harmed"]) == (again.setting, 0)
    cells = [
        percent(passed["layers_saved"], sign=True),
        percent(passed["work_saved"], sign=True),
        f"{passed['differ']} of {n}",
        f"{failed['threshold']}: {failed['harmed']} harmed",
    ]
    assert f"| {LABELS[measure]} | {again.setting} | {' | '.join(cells)} |" in PAGE
    assert f"at most {percent(1 - 0.05 ** (1 / n))} are" in PAGE


def test_the_change_on_further_questions_comes_from_its_traces() -> None:
    whole, early = (list(read_traces(FOLDER / f"{name}.parquet").traces) for name in ("whole", "early"))
    assert [one.id for one in whole] == [one.id for one in early]
    before, after = (np.array([one.steps[0].is_correct for one in traces]) for traces in (whole, early))
    change = points(change_interval(after, before)).replace(" to ", ", ")
    value, interval = change.split(" ", 1)
    assert f"{percent(before.mean())} → {percent(after.mean())} are right ({value} points {interval}" in PAGE
    assert (before & ~after).sum() == 4
    assert not (after & ~before).any()
    assert (
        f"{sum(one.steps[0].tokens for one in early)}\n  tokens instead of {sum(one.steps[0].tokens for one in whole)}"
        in PAGE
    )
