"""The audited share and the alarm for drift."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
from scipy.stats import t as student

from justenough.gateway.learn.audit import CHANCE, REPEATS, WINDOW, Drift, is_audited
from justenough.gateway.settings import GatewaySettings
from tests.unit.gateway.serving import calibration_of


def test_the_share_is_kept_and_a_repeated_request_is_treated_alike() -> None:
    bodies = [f"request {number}".encode() for number in range(20_000)]
    audited = [is_audited(body, 0.1, secret=b"s") for body in bodies]
    assert abs(sum(audited) / len(audited) - 0.1) < 0.01
    assert audited == [is_audited(body, 0.1, secret=b"s") for body in bodies]
    assert not any(is_audited(body, 0.0, secret=b"s") for body in bodies)
    assert all(is_audited(body, 1.0, secret=b"s") for body in bodies)


def test_no_client_can_choose_to_be_audited() -> None:
    # Nonces that a public hash would select are audited no more often than others.
    secret = GatewaySettings(upstream="http://127.0.0.1:1").audit_secret
    chosen = [f"nonce {n}".encode() for n in range(100_000)]
    chosen = [body for body in chosen if int.from_bytes(hashlib.sha256(body).digest()[:8], "big") < 0.02 * 2**64]
    assert sum(is_audited(body, 0.02, secret=secret) for body in chosen) < 0.1 * len(chosen)
    assert GatewaySettings(upstream="http://127.0.0.1:1").audit_secret != secret
    assert repr(secret) not in repr(GatewaySettings(upstream="http://127.0.0.1:1", audit_secret=secret))


def feed(drift: Drift, bits: float, count: int) -> list[bool]:
    return [drift.add(bits) for _ in range(count)]


def test_one_burst_of_odd_requests_is_no_drift() -> None:
    drift = Drift(calibration_of(1.0))
    feed(drift, 0.5, WINDOW)
    feed(drift, 9.0, WINDOW)
    assert not drift.drifted
    feed(drift, 0.5, WINDOW)
    feed(drift, 9.0, WINDOW)
    assert not drift.drifted


def test_a_lasting_drift_is_told_and_ordinary_requests_end_it() -> None:
    drift = Drift(calibration_of(1.0))
    changes = feed(drift, 9.0, REPEATS * WINDOW)
    assert (drift.drifted, sum(changes)) == (True, 1)
    assert drift.summary()["advice"] is not None
    feed(drift, 9.0, 5 * WINDOW)
    assert drift.drifted
    # Whatever the odd ones left in the window, fewer than two windows of ordinary requests are enough.
    feed(drift, 9.0, WINDOW // 8)
    feed(drift, 0.5, 2 * WINDOW)
    assert not drift.drifted
    assert drift.summary()["advice"] is None


@pytest.mark.parametrize("n", [4, 10, 40, 300])
def test_false_alarms_are_as_rare_as_promised_whatever_the_calibrations_size(n: int) -> None:
    """A window of the calibration's own distribution, over many calibrations of n examples."""
    rng = np.random.default_rng(n)
    trials = 200_000
    chance = 0.01
    limit = student.ppf(1 - chance / 2, n - 1)
    sample = rng.normal(0.5, 0.2, (trials, n)) if n <= 40 else rng.normal(0.5, 0.2, (20_000, n))
    live = rng.normal(0.5, 0.2 / WINDOW**0.5, len(sample))
    deviation = abs(live - sample.mean(axis=1)) / (sample.std(axis=1, ddof=1) * (1 / WINDOW + 1 / n) ** 0.5)
    rate = float((deviation > limit).mean())
    # The same limit's share at a chance that can be counted: 1 % of windows, within three standard errors.
    assert rate == pytest.approx(chance, abs=3 * (chance / len(sample)) ** 0.5)


def test_the_limit_is_the_quantile_for_the_calibrations_size() -> None:
    assert Drift(calibration_of(1.0)).limit == pytest.approx(student.ppf(1 - CHANCE / 2, 39))
    assert Drift(None).add(1.0) is False
    rng = random.Random(0)
    drift = Drift(calibration_of(1.0))
    assert not any(drift.add(rng.gauss(0.5, 0.2)) for _ in range(100 * WINDOW))
