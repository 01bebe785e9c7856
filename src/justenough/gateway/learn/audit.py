"""What stopping really saves and changes, measured on a share of the traffic that runs to its end; and drift."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import stdtrit

from justenough.calibration.calibration import Calibration
from justenough.stats import saving_bootstrap, wilson
from justenough.trace import Json

_MOST: Final = 5_000
"""Audited requests kept: older ones no longer tell what happens now."""
WINDOW: Final = 64
"""Requests that a verdict on drift is taken on."""
CHANCE: Final = 1 / 16_000
"""Probability that one window lies beyond the limit where nothing has changed (two-sided)."""
REPEATS: Final = 2
"""Windows in a row beyond the limit before the gate stops to decide: one burst of odd requests is no drift."""


def is_audited(body: bytes, share: float, *, secret: bytes) -> bool:
    """Whether this request belongs to the audited share; a repeated request always gets the same answer.

    `secret` keeps clients from choosing the requests that are audited.
    """
    return int.from_bytes(hashlib.blake2b(body, key=secret, digest_size=8).digest(), "big") < share * 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """One request that ran to its end, beside what the gate would have made of it."""

    full: int
    """Completion tokens really generated."""
    gated: int
    """Up to the stop, with the answer elicited there; the same as `full` where the gate would not have stopped."""
    stopped: bool
    agreed: bool | None
    """Whether both answers are alike; None where one of them could not be read."""
    cut: bool = True
    """Whether stopping leaves a stream early; a sequence that takes no further step leaves none."""
    cascade_full: int = 0
    """Likewise of a cascade's second model, which is counted apart."""
    cascade_gated: int = 0


class Audit:
    """The audited requests of late."""

    def __init__(self) -> None:
        self._rows: deque[Audited] = deque(maxlen=_MOST)
        self.probe_tokens = 0
        """What the audit itself has cost."""

    def add(self, row: Audited) -> None:
        """Take one."""
        self._rows.append(row)

    def __len__(self) -> int:
        return len(self._rows)

    def summary(self, overshoot: float | None) -> dict[str, Json]:
        """Stop rate, saving and agreement with 95 % intervals; null where there is nothing to tell.

        `overshoot`: tokens that the upstream generates after each stop, None where that is not known. `saving` is net
        of it; where it is not known `saving` is what was not received, and `saving_is` says that it is an upper bound.
        """
        rows = list(self._rows)
        graded = [row.agreed for row in rows if row.agreed is not None]
        stopped = wilson(sum(row.stopped for row in rows), len(rows))
        agreement = wilson(sum(graded), len(graded))
        cuts = [row for row in rows if row.stopped and row.cut]
        known = overshoot is not None or not cuts
        gross = _saving([row.gated for row in rows], [row.full for row in rows])
        net = _saving(
            [row.gated + (overshoot or 0.0) * (row.stopped and row.cut) for row in rows], [row.full for row in rows]
        )
        cascade = _saving([row.cascade_gated for row in rows], [row.cascade_full for row in rows])
        return {
            "requests": len(rows),
            "unread": len(rows) - len(graded),
            "stop_rate": None if stopped is None else dict(stopped._asdict()),
            "saving": net if known else gross,
            "saving_is": "net of the overshoot" if known else "an upper bound: the overshoot is not measured",
            "saving_gross": gross,
            "cascade_saving": cascade,
            "overshoot_tokens": overshoot,
            # Did the upstream not stop at all, it would generate as much as was saved: no saving is sure then.
            "overshoot_bound": float(np.mean([row.full - row.gated for row in cuts])) if cuts else None,
            "agreement": None if agreement is None else dict(agreement._asdict()),
            "probe_tokens": self.probe_tokens,
        }


def _saving(gated: Sequence[float], full: Sequence[float]) -> Json:
    if not full:
        return None
    found = saving_bootstrap(np.array(gated, dtype=np.float64), np.array(full, dtype=np.float64))
    return None if found is None else dict(found._asdict())


class Drift:
    """Compares live entropies of the first step with those that the threshold was calibrated on.

    The gate stops to decide after `REPEATS` windows in a row beyond the limit, and decides again after one window
    within it. The limit accounts for the calibration's own size: mean and standard deviation of few examples are
    uncertain, so the deviation is compared with a quantile of Student's t with n - 1 degrees of freedom.
    """

    def __init__(self, calibration: Calibration | None) -> None:
        self._expected = expected(calibration) if calibration is not None else None
        self._window: list[float] = []
        self._beyond = 0
        """Windows in a row beyond the limit."""
        self.drifted = False
        self.live_mean: float | None = None
        """Mean bits of the last complete window."""
        self.deviation: float | None = None
        """Standard errors between that and the calibration's."""
        self.limit: float | None = None
        """Standard errors that a window may deviate."""
        if self._expected is not None:
            self.limit = float(stdtrit(self._expected[2] - 1, 1 - CHANCE / 2))

    def add(self, bits: float) -> bool:
        """Take one request's first-step entropy; whether the state has changed with it."""
        if self._expected is None or self.limit is None:
            return False
        self._window.append(bits)
        if len(self._window) < WINDOW:
            return False
        mean, sd, n = self._expected
        self.live_mean = math.fsum(self._window) / WINDOW
        # The calibration's own mean is uncertain too, the more so the fewer its examples.
        self.deviation = abs(self.live_mean - mean) / (sd * math.sqrt(1 / WINDOW + 1 / n))
        self._window.clear()
        self._beyond = self._beyond + 1 if self.deviation > self.limit else 0
        before = self.drifted
        self.drifted = self._beyond >= REPEATS or (before and self._beyond > 0)
        return self.drifted is not before

    def summary(self) -> dict[str, Json]:
        """For the status."""
        mean, sd, n = self._expected or (None, None, None)
        return {
            "watched": self._expected is not None,
            "drifted": self.drifted,
            "advice": "calibrate anew: nothing is stopped at present" if self.drifted else None,
            "calibrated_mean": mean,
            "calibrated_sd": sd,
            "calibrated_n": n,
            "live_mean": self.live_mean,
            "deviation": self.deviation,
            "limit": self.limit,
            "window": WINDOW,
            "in_window": len(self._window),
        }


def expected(calibration: Calibration) -> tuple[float, float, int] | None:
    """Mean, standard deviation (bits) and number of the calibration's first-step entropies, right and wrong together.

    None where it holds too few to tell a spread.
    """
    groups = [
        (calibration.n_right, calibration.mean_right, calibration.sd_right),
        (calibration.n_wrong, calibration.mean_wrong, calibration.sd_wrong),
    ]
    known = [(n, mean, sd or 0.0) for n, mean, sd in groups if n and mean is not None]
    total = sum(n for n, _, _ in known)
    if total < 2:
        return None
    mean = math.fsum(n * of for n, of, _ in known) / total
    squares = math.fsum((n - 1) * sd**2 + n * (of - mean) ** 2 for n, of, sd in known)
    sd = math.sqrt(squares / (total - 1))
    return (mean, sd, total) if sd > 0 else None
