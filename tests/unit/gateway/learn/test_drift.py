"""The alarm for drift: each client has its own, and no client can raise the alarm of all."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.stats import t as student

from justenough.gateway.learn.drift import CHANCE, EXPIRES_S, MOST_CLIENTS, REPEATS, SHARE, WINDOW, Drift
from tests.unit.gateway.serving import calibration_of


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def feed(drift: Drift, bits: float, count: int, client: str = "client") -> list[bool]:
    return [drift.add(bits, client) for _ in range(count)]


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
    assert Drift(None).add(1.0, "client") is False
    rng = random.Random(0)
    drift = Drift(calibration_of(1.0))
    assert not any(drift.add(rng.gauss(0.5, 0.2), "client") for _ in range(100 * WINDOW))


def test_an_odd_client_turns_the_gate_off_for_itself_only() -> None:
    drift = Drift(calibration_of(1.0))
    feed(drift, 0.5, WINDOW, "ordinary")
    feed(drift, 9.0, 10 * WINDOW, "odd")
    assert drift.is_off("odd")
    assert not any((drift.is_off("ordinary"), drift.is_off("new"), drift.drifted))
    assert drift.summary()["drifted_clients"] == 1


@pytest.mark.parametrize("odd_share", [8, 32, 60])
def test_one_client_among_many_cannot_raise_the_alarm_of_all(odd_share: int) -> None:
    """In each window of requests `odd_share` come from one client; the others have the calibration's distribution."""
    rng = random.Random(0)
    drift = Drift(calibration_of(1.0))
    for number in range(200 * WINDOW):
        if number % WINDOW < odd_share:
            drift.add(9.0, "odd")
        else:
            drift.add(rng.gauss(0.5, 0.2), f"client {rng.randrange(500)}")
        assert not drift.is_off("new")
    assert drift.is_off("odd")


def test_many_clients_with_few_requests_show_a_drift_together() -> None:
    drift = Drift(calibration_of(1.0))
    for number in range(REPEATS * WINDOW):
        drift.add(9.0, f"client {number % (WINDOW // SHARE)}")
    assert drift.drifted
    assert drift.is_off("new")


def test_a_client_that_is_not_plain_only_changes_its_own_alarm() -> None:
    drift = Drift(calibration_of(1.0))
    for number in range(REPEATS * WINDOW):
        drift.add(9.0, f"client {number % 32}", plain=False)
    assert not drift.is_off("new")


def test_an_alarm_expires_without_requests() -> None:
    clock = Clock()
    drift = Drift(calibration_of(1.0), clock=clock)
    feed(drift, 9.0, REPEATS * WINDOW)
    clock.now = EXPIRES_S - 1
    assert drift.is_off("client")
    clock.now = EXPIRES_S + 1
    assert not drift.is_off("client")
    assert not drift.drifted
    # What came before the pause counts no more.
    feed(drift, 9.0, (REPEATS - 1) * WINDOW)
    assert not drift.is_off("client")
    feed(drift, 9.0, WINDOW)
    assert drift.is_off("client")


def test_the_remembered_clients_are_limited() -> None:
    drift = Drift(calibration_of(1.0))
    for number in range(2 * MOST_CLIENTS):
        drift.add(0.5, f"client {number}")
    assert drift.summary()["clients"] == MOST_CLIENTS
