"""The audited share."""

from __future__ import annotations

from justenough.gateway.learn.audit import is_audited


def test_the_share_of_audited_requests_is_as_configured() -> None:
    # 2,000 are expected, with a standard deviation of 42.
    assert abs(sum(is_audited(0.1) for _ in range(20_000)) - 2_000) < 6 * 42
    assert not any(is_audited(0.0) for _ in range(1_000))
    assert all(is_audited(1.0) for _ in range(1_000))
