"""The distributions, curves and families of the report."""

from __future__ import annotations

import numpy as np
import pytest

from tests.reports import Case, contents_of


def test_curves_agree_with_the_figures(case: Case) -> None:
    found = contents_of(case)
    evidence = case.evaluation.separation
    curve = np.array([(0.0, 0.0), *found.roc])
    area = float(np.trapezoid(curve[:, 1], curve[:, 0]))
    assert evidence.auroc is not None
    assert area == pytest.approx(evidence.auroc.value)
    assert sum(entry.right for entry in found.histogram) == evidence.right
    assert sum(entry.wrong for entry in found.histogram) == evidence.wrong
    assert sum(entry.share.n for entry in found.reliability) == evidence.right + evidence.wrong
    assert sum(entry.share.value * entry.share.n for entry in found.reliability) == pytest.approx(evidence.right)
    stopped = [row.stopped for row in found.sweep]
    assert stopped == sorted(stopped)
    assert stopped[-1] == 1
    weights = [row.problems / case.evaluation.problems for row in found.families]
    gated = sum(weight * row.gated for weight, row in zip(weights, found.families, strict=True))
    assert gated == pytest.approx(case.evaluation.gated.accuracy)
