import numpy as np
import pytest

from benchmarks.drift import beyond_limit, measured, raises_alarm
from justenough.gateway.learn.drift import WINDOW, Drift
from tests.unit.gateway.serving import calibration_of


def test_the_benchmark_counts_what_the_gateways_alarm_does() -> None:
    summary = Drift(calibration_of(1.0)).summary()
    mean, sd, n = (summary[key] for key in ("calibrated_mean", "calibrated_sd", "calibrated_n"))
    assert isinstance(mean, float)
    assert isinstance(sd, float)
    assert isinstance(n, int)
    rng = np.random.default_rng(0)
    windows = rng.normal(mean, 0.75 * sd, size=(40, 6))
    beyond = beyond_limit(windows, np.full((40, 1), mean), np.full((40, 1), sd), n)
    alarms = []
    for row, far in zip(windows.tolist(), beyond.tolist(), strict=True):
        drift, states, last = Drift(calibration_of(1.0)), [], []
        for value in row:
            for _ in range(WINDOW):
                drift.add(value, "client")
            states.append(drift.drifted)
            last.append(drift.deviation is not None and drift.limit is not None and drift.deviation > drift.limit)
        assert last == far
        alarms.append(any(states))
    assert raises_alarm(beyond).tolist() == alarms
    assert 0 < sum(alarms) < 40


@pytest.mark.parametrize(("scores", "most"), [("normal", 0.001), ("lognormal", 0.03)])
def test_false_alarms_are_rare(scores: str, most: float) -> None:
    row = measured("normal" if scores == "normal" else "lognormal", 10, calibrations=20_000)
    assert row.n == 10
    assert row.first_window.value <= most
    assert row.alarm.value <= most
    assert row.alarm.high is not None
    assert row.alarm.value < row.alarm.high
