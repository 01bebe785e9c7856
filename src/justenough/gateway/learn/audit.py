"""Measures what stopping saves and changes, on requests that run to their end."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from justenough.stats import Estimate, saving_bootstrap, wilson
from justenough.trace import Json

_MOST: Final = 1_000
"""Audited requests that are kept; with more, the intervals would delay all streams."""


def is_audited(share: float) -> bool:
    """Whether a request belongs to the audited share.

    Each request is drawn on its own: if its bytes decided, a client could repeat an audited request.
    """
    return secrets.randbelow(2**53) < share * 2**53


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
        self._added = 0
        self._summary: tuple[int, float | None, dict[str, Json]] | None = None
        """The last summary, with the number of audited requests and the overshoot that it is for."""
        self.probe_tokens = 0
        """Tokens that the audit itself generated."""

    def add(self, row: Audited) -> None:
        """Add a request."""
        self._rows.append(row)
        self._added += 1

    def __len__(self) -> int:
        return len(self._rows)

    def summary(self, overshoot: float | None) -> dict[str, Json]:
        """Stop rate, saving and agreement with 95 % intervals, null without data.

        `overshoot`: tokens that the upstream generates after each stop, None if unknown. `saving` is net of it. If it
        is unknown, `saving` counts the tokens that were not received, and `saving_is` says that it is an upper bound.
        The intervals are computed once for each new audited request: anyone may ask for the status.
        """
        if self._summary is None or self._summary[:2] != (self._added, overshoot):
            self._summary = (self._added, overshoot, self._computed(overshoot))
        return {**self._summary[2], "probe_tokens": self.probe_tokens}

    def _computed(self, overshoot: float | None) -> dict[str, Json]:
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
        }


def _saving(gated: Sequence[float], full: Sequence[float]) -> Json:
    if not full:
        return None
    return estimate_json(saving_bootstrap(np.array(gated, dtype=np.float64), np.array(full, dtype=np.float64)))


def estimate_json(estimate: Estimate | None) -> Json:
    """An estimate with its interval as JSON."""
    return None if estimate is None else dict(estimate._asdict())
