"""Measures what stopping saves and changes, on requests that run to their end, and watches for drift."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from justenough.calibration.calibration import Calibration
from justenough.stats import Estimate, saving_bootstrap, wilson
from justenough.trace import Json

_MOST: Final = 5_000
"""Audited requests that are kept; older ones are out of date."""
WINDOW: Final = 64
"""Requests per check for drift."""
CHANCE: Final = 1 / 16_000
"""Probability (two-sided) that a window is beyond the limit although nothing has changed."""
REPEATS: Final = 2
"""Consecutive windows beyond the limit before the gate is turned off; one burst of odd requests is not a drift."""


def is_audited(body: bytes, share: float, *, secret: bytes) -> bool:
    """Whether this request belongs to the audited share; the same for a repeated request.

    With a `secret`, clients cannot choose the requests that are audited.
    """
    return int.from_bytes(hashlib.blake2b(body, key=secret, digest_size=8).digest(), "big") < share * 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """One request that ran to its end, compared with what the gate would have returned."""

    full: int
    gated: int
    """Tokens up to the stop and of the answer elicited there; `full` if the gate would not have stopped."""
    stopped: bool
    agreed: bool | None
    """Whether both answers are the same; None if one could not be read."""
    cut: bool = True
    """Whether the stop leaves a stream early; in the sequential shape it does not."""
    cascade_full: int = 0
    """The same for a cascade's second model, which is counted separately."""
    cascade_gated: int = 0


class Audit:
    """The recent audited requests."""

    def __init__(self) -> None:
        self._rows: deque[Audited] = deque(maxlen=_MOST)
        self.probe_tokens = 0
        """Tokens that the audit itself generated."""

    def add(self, row: Audited) -> None:
        """Add a request."""
        self._rows.append(row)

    def __len__(self) -> int:
        return len(self._rows)

    def summary(self, overshoot: float | None) -> dict[str, Json]:
        """Stop rate, saving and agreement with 95 % intervals, null without data.

        `overshoot`: tokens that the upstream generates after each stop, None if unknown. `saving` is net of it. If it
        is unknown, `saving` counts the tokens that were not received, and `saving_is` says that it is an upper bound.
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
            "stop_rate": estimate_json(stopped),
            "saving": net if known else gross,
            "saving_is": "net of the overshoot" if known else "an upper bound: the overshoot is not measured",
            "saving_gross": gross,
            "cascade_saving": cascade,
            "overshoot_tokens": overshoot,
            # An upstream that does not stop at all generates everything that was saved.
            "overshoot_bound": float(np.mean([row.full - row.gated for row in cuts])) if cuts else None,
            "agreement": estimate_json(agreement),
            "probe_tokens": self.probe_tokens,
        }


def _saving(gated: Sequence[float], full: Sequence[float]) -> Json:
    if not full:
        return None
    return estimate_json(saving_bootstrap(np.array(gated, dtype=np.float64), np.array(full, dtype=np.float64)))


def estimate_json(estimate: Estimate | None) -> Json:
    """An estimate with its interval as JSON."""
    return None if estimate is None else dict(estimate._asdict())


class Drift:
    """Compares live entropies of the first step with those of the calibration.

    The gate is off after `REPEATS` consecutive windows beyond the limit, and on again after one window within it. The
    limit is a quantile of Student's t with n - 1 degrees of freedom, because mean and standard deviation of few
    examples are uncertain.
    """

    def __init__(self, calibration: Calibration | None) -> None:
        self._expected = expected(calibration) if calibration is not None else None
        self._window: list[float] = []
        self._beyond = 0
        self.drifted = False
        self.live_mean: float | None = None
        """Mean bits of the last complete window."""
        self.deviation: float | None = None
        """Standard errors between that mean and the calibration's."""
        self.limit: float | None = None
        """Standard errors that a window may deviate."""
        if self._expected is not None:
            from scipy.special import stdtrit

            self.limit = float(stdtrit(self._expected[2] - 1, 1 - CHANCE / 2))

    def add(self, bits: float) -> bool:
        """Add the entropy of a request's first step; whether the state has changed."""
        if self._expected is None or self.limit is None:
            return False
        self._window.append(bits)
        if len(self._window) < WINDOW:
            return False
        mean, sd, n = self._expected
        self.live_mean = math.fsum(self._window) / WINDOW
        # The calibration's own mean is uncertain too.
        self.deviation = abs(self.live_mean - mean) / (sd * math.sqrt(1 / WINDOW + 1 / n))
        self._window.clear()
        self._beyond = self._beyond + 1 if self.deviation > self.limit else 0
        before = self.drifted
        self.drifted = self._beyond >= REPEATS or (before and self._beyond > 0)
        return self.drifted is not before

    def summary(self) -> dict[str, Json]:
        """The drift for the status."""
        mean, sd, n = self._expected or (None, None, None)
        return {
            "watched": self._expected is not None,
            "drifted": self.drifted,
            "advice": "calibrate again: nothing is stopped at present" if self.drifted else None,
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

    None if there are too few for a standard deviation.
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
