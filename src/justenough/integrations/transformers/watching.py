"""The parts of the gate that `generate` calls: processors that measure and force, and criteria that see each token."""

from __future__ import annotations

from collections.abc import Sequence as Rows

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteriaList

from justenough.integrations.logits import plain
from justenough.integrations.transformers.sequence import Measured, Sequence
from justenough.signal.signal import Signal


class Batch:
    """The sequences of one call, in the order of its rows."""

    def __init__(self, rows: Rows[Sequence], signal: Signal) -> None:
        self.rows = rows
        self._signal = signal
        self._logprobs: torch.Tensor | None = None
        """Natural log-probabilities of the next token, shape (B, V), in double precision; None if no row needs them."""

    def around(self, processors: LogitsProcessorList) -> LogitsProcessorList:
        """The user's processors between those of the gate, which measures before all others and forces after them."""
        return LogitsProcessorList([_Measuring(self), *processors, _Forcing(self)])

    def watching(self, criteria: StoppingCriteriaList) -> StoppingCriteriaList:
        """The criteria, which also tell the gate each token."""
        return _Watching(self, criteria)

    def measure(self, logits: torch.Tensor) -> None:
        """Keep the log-probabilities of raw logits (B, V) until the tokens are chosen."""
        needed = any(row.measures for row in self.rows)
        # Apple's GPUs have no double precision.
        wide = logits.cpu() if needed and logits.device.type == "mps" else logits
        self._logprobs = torch.log_softmax(wide.double(), dim=-1) if needed else None

    def take(self, ids: torch.Tensor, done: torch.Tensor) -> None:
        """Take the new tokens (B,); `done` (B,): whether each sequence ends with its token."""
        measured = self._measured(ids)
        for row, token_id, one, ended in zip(self.rows, ids.tolist(), measured, done.tolist(), strict=True):
            if not row.finished:
                row.take(token_id, one, last=ended)

    def _measured(self, ids: torch.Tensor) -> Rows[Measured | None]:
        """The measurement of each sampled token (B,)."""
        logprobs = self._logprobs
        if logprobs is None:
            return [None] * len(self.rows)
        chosen = logprobs.gather(1, ids.to(logprobs.device)[:, None])[:, 0].tolist()
        if self._signal.tail == "full":
            bits = plain(logprobs).bits.tolist()
            return [Measured(one, entropy=each) for one, each in zip(chosen, bits, strict=True)]
        top = logprobs.topk(min(self._signal.top_k or 1, logprobs.shape[1]), dim=-1).values.tolist()
        return [Measured(one, tuple(row)) for one, row in zip(chosen, top, strict=True)]


class _Measuring(LogitsProcessor):  # type: ignore[misc]
    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._batch.measure(scores)
        return scores


class _Forcing(LogitsProcessor):  # type: ignore[misc]
    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        rows = enumerate(self._batch.rows)
        forced = {place: row.forced for place, row in rows if not row.finished and row.forced is not None}
        if forced:
            # `generate` returns the tensor itself as `logits` if no other processor has made a new one.
            scores = scores.clone()
            scores[list(forced)] = -torch.inf
            scores[list(forced), list(forced.values())] = 0.0
        return scores


class _Watching(StoppingCriteriaList):  # type: ignore[misc]
    def __init__(self, batch: Batch, criteria: StoppingCriteriaList) -> None:
        super().__init__(criteria)
        self._batch = batch

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **options: object) -> torch.Tensor:
        done: torch.Tensor = super().__call__(input_ids, scores, **options)
        self._batch.take(input_ids[:, -1], done)
        return done
