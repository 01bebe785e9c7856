"""The audited share, and what its summary costs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.gateway.learn import audit
from justenough.gateway.learn.audit import Audit, Audited, is_audited
from justenough.stats import saving_bootstrap


def test_the_share_of_audited_requests_is_as_configured() -> None:
    # 2,000 are expected, with a standard deviation of 42.
    assert abs(sum(is_audited(0.1) for _ in range(20_000)) - 2_000) < 6 * 42
    assert not any(is_audited(0.0) for _ in range(1_000))
    assert all(is_audited(1.0) for _ in range(1_000))


def test_the_intervals_are_computed_once_for_each_new_audited_request(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    bootstrap = saving_bootstrap

    def counted(*arrays: NDArray[np.float64]) -> object:
        calls.append(1)
        return bootstrap(*arrays)

    monkeypatch.setattr(audit, "saving_bootstrap", counted)
    audits = Audit()
    audits.add(Audited(full=10, gated=5, stopped=True, agreed=True))
    first = audits.summary(1.0)
    needed = len(calls)
    audits.probe_tokens = 7
    assert audits.summary(1.0) == {**first, "probe_tokens": 7}
    assert len(calls) == needed
    assert audits.summary(2.0) != first
    audits.add(Audited(full=10, gated=10, stopped=False, agreed=None))
    assert audits.summary(1.0)["requests"] == 2
