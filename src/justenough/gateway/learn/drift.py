"""Watches whether live entropies still look like those of the calibration.

Each client has a window of its own, which decides only about that client. A window of all clients decides about those
without a complete window. One client can move that window's mean by at most SHARE * CLIP / WINDOW standard deviations,
less than the limit, so it cannot turn the gate off for others.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from scipy.special import stdtrit

from justenough.calibration.calibration import Calibration
from justenough.trace import Json

WINDOW: Final = 64
"""Requests per check."""
CHANCE: Final = 1 / 16_000
"""Probability (two-sided) that a window is beyond the limit although nothing has changed."""
REPEATS: Final = 2
"""Consecutive windows beyond the limit before the gate is turned off; one burst of odd requests is not a drift."""
SHARE: Final = 4
"""Requests of one client in a window of all clients."""
CLIP: Final = 3.0
"""Standard deviations from the calibration's mean to which the entropies in a window of all clients are limited."""
EXPIRES_S: Final = 6 * 3600.0
"""Time after its last complete window at which a state is forgotten."""
MOST_CLIENTS: Final = 1024
"""Clients that are remembered; the one that was not seen for the longest time is forgotten first."""


@dataclass(slots=True)
class _Alarm:
    window: list[tuple[str, float]] = field(default_factory=list)
    """Clients and bits of the requests since the last check."""
    beyond: int = 0
    """Consecutive windows beyond the limit."""
    is_on: bool | None = None
    """None until a window is complete."""
    expires_at: float = math.inf


class Drift:
    """Compares live entropies of the first step with those of the calibration.

    The gate is off for a client after `REPEATS` consecutive windows beyond the limit, and on again after one window
    within it. The limit is a quantile of Student's t with n - 1 degrees of freedom, because mean and standard deviation
    of few examples are uncertain.
    """

    def __init__(self, calibration: Calibration | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._expected = expected(calibration) if calibration is not None else None
        self._clock = clock
        self._all = _Alarm()
        self._clients: OrderedDict[str, _Alarm] = OrderedDict()
        self._reported = False
        self.live_mean: float | None = None
        """Mean bits of the last complete window."""
        self.deviation: float | None = None
        """Standard errors between that mean and the calibration's."""
        self.limit: float | None = None
        """Standard errors that a window may deviate."""
        if self._expected is not None:
            self.limit = float(stdtrit(self._expected[2] - 1, 1 - CHANCE / 2))

    def add(self, bits: float, client: str, *, plain: bool = True) -> bool:
        """Add the entropy of a request's first step; whether `drifted` has changed.

        A request that is not `plain`, since its client shaped the answer, counts only for this client.
        """
        if self._expected is None:
            return False
        mean, sd, _ = self._expected
        alarm = self._clients.setdefault(client, _Alarm())
        self._clients.move_to_end(client)
        if len(self._clients) > MOST_CLIENTS:
            self._clients.popitem(last=False)
        complete = self._take(alarm, client, bits, share=WINDOW)
        if plain:
            bits = min(max(bits, mean - CLIP * sd), mean + CLIP * sd)
            complete |= self._take(self._all, client, bits, share=SHARE)
        before = self._reported
        if complete:
            self._reported = self.drifted
        return self._reported is not before

    def is_off(self, client: str) -> bool:
        """Whether the gate is off for a client: by its own windows, or by those of all clients if it has none."""
        own = self._state(self._clients.get(client, self._all))
        return bool(self._state(self._all) if own is None else own)

    @property
    def drifted(self) -> bool:
        """Whether the window of all clients, or the own window of every client, shows a drift."""
        states = self._known_states()
        return bool(self._state(self._all)) or (bool(states) and all(states))

    def _known_states(self) -> list[bool]:
        """Whether the gate is off, for each client with a complete window."""
        return [state for alarm in self._clients.values() if (state := self._state(alarm)) is not None]

    def _state(self, alarm: _Alarm) -> bool | None:
        return None if self._clock() > alarm.expires_at else alarm.is_on

    def _take(self, alarm: _Alarm, client: str, bits: float, *, share: int) -> bool:
        """Add an entropy to a window, unless it has `share` of this client; whether the window is complete."""
        if self._expected is None or self.limit is None:
            return False
        if self._clock() > alarm.expires_at:
            alarm.window, alarm.beyond, alarm.is_on, alarm.expires_at = [], 0, None, math.inf
        if sum(name == client for name, _ in alarm.window) >= share:
            return False
        alarm.window.append((client, bits))
        if len(alarm.window) < WINDOW:
            return False
        mean, sd, n = self._expected
        self.live_mean = math.fsum(value for _, value in alarm.window) / WINDOW
        # The calibration's own mean is uncertain too.
        self.deviation = abs(self.live_mean - mean) / (sd * math.sqrt(1 / WINDOW + 1 / n))
        alarm.window = []
        alarm.beyond = alarm.beyond + 1 if self.deviation > self.limit else 0
        alarm.is_on = alarm.beyond >= REPEATS or (bool(alarm.is_on) and alarm.beyond > 0)
        alarm.expires_at = self._clock() + EXPIRES_S
        return True

    def summary(self) -> dict[str, Json]:
        """The drift for the status."""
        mean, sd, n = self._expected or (None, None, None)
        states, drifted = self._known_states(), self.drifted
        latest = next(reversed(self._clients.values()), self._all)
        return {
            "watched": self._expected is not None,
            "drifted": drifted,
            "advice": "calibrate again: nothing is stopped at present" if drifted else None,
            "calibrated_mean": mean,
            "calibrated_sd": sd,
            "calibrated_n": n,
            "live_mean": self.live_mean,
            "deviation": self.deviation,
            "limit": self.limit,
            "window": WINDOW,
            "in_window": len(latest.window),
            "clients": len(self._clients),
            "drifted_clients": sum(states),
        }


def expected(calibration: Calibration) -> tuple[float, float, int] | None:
    """Mean, standard deviation (bits) and number of the calibration's first-step entropies, right and wrong together.

    None if there are too few for a standard deviation.
    """
    groups = [
        (calibration.n_right, calibration.mean_right, calibration.sd_right),
        (calibration.n_wrong, calibration.mean_wrong, calibration.sd_wrong),
    ]
    measured = [(n, mean, sd or 0.0) for n, mean, sd in groups if n and mean is not None]
    total = sum(n for n, _, _ in measured)
    if total < 2:
        return None
    mean = math.fsum(n * of for n, of, _ in measured) / total
    squares = math.fsum((n - 1) * sd**2 + n * (of - mean) ** 2 for n, of, sd in measured)
    sd = math.sqrt(squares / (total - 1))
    return (mean, sd, total) if sd > 0 else None
