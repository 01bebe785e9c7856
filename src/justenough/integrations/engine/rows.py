"""Rows of logits of gated requests: measures them, and leaves only the token that must come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from justenough.integrations.engine.track import Track

if TYPE_CHECKING:
    import torch


class Row(NamedTuple):
    """One row of logits of a gated request."""

    number: int
    track: Track
    position: int
    """Output position of the token that the row predicts."""
    draft: int | None = None
    """The draft token before it; None if all tokens before it are certain."""


def applied(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """Measure rows whose tracks have all certain tokens, and force the end of thoughts that the gate stops."""
    _measure(logits, [row for row in rows if row.track.measures_next])
    forced: dict[int, int] = {}
    barred: dict[int, int] = {}
    ahead: dict[int, Track] = {}
    """Copies of tracks that also have the draft tokens of this call."""
    for row in rows:
        track = row.track
        if not track.acts:
            continue
        if row.draft is not None and track.needs_drafts:
            ahead[id(track)] = ahead.get(id(track)) or track.ahead()
            track = track.with_draft(ahead[id(track)], row.draft)
        if (token := track.forced(row.position)) is not None:
            forced[row.number] = token
        elif (token := track.barred(row.position)) is not None:
            barred[row.number] = token
    return _changed(logits, forced, barred) if forced or barred else logits


def _measure(logits: torch.Tensor, rows: Iterable[Row]) -> None:
    """Measure rows of logits, each under the signal of its request."""
    from justenough.integrations.logits import entropy_bits, top_logprobs

    by_width: dict[int | None, list[Row]] = {}
    for row in rows:
        signal = row.track.order.calibration.signal
        by_width.setdefault(None if signal.tail == "full" else signal.top_k, []).append(row)
    for top_k, group in by_width.items():
        everything = len(group) == logits.shape[0]
        chosen = logits if everything else logits[[row.number for row in group]]
        group = sorted(group, key=lambda row: row.number) if everything else group
        measures = entropy_bits(chosen) if top_k is None else top_logprobs(chosen, top_k)
        for row, measure in zip(group, measures, strict=True):
            row.track.measures[row.position] = measure


def _changed(logits: torch.Tensor, forced: Mapping[int, int], barred: Mapping[int, int]) -> torch.Tensor:
    """Logits that leave only the forced token of a row, and take the barred one from a row."""
    import torch

    if forced:
        rows, tokens = list(forced), list(forced.values())
        values = logits[rows, tokens]
        # Where a grammar forbids the token, the row stays as it is.
        allowed = torch.isfinite(values)[:, None]
        logits[rows] = torch.where(allowed, -torch.inf, logits[rows])
        logits[rows, tokens] = values
    if barred:
        logits[list(barred), list(barred.values())] = -torch.inf
    return logits
