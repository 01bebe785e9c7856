"""AdaDec (arXiv 2506.08980): a batched decoder that looks ahead where the next token is uncertain.

The publication: decoding pauses when the entropy of the next token exceeds a learned threshold. Each of the B = 3 most
likely tokens is then continued greedily by up to L = 5 tokens. The token whose trajectory has the highest mean
log-probability is chosen, its look-ahead is thrown away, and decoding continues. The threshold is the entropy at which
a logistic regression of "the reference token is ranked first" changes its decision.

Differences here: entropies are in bits, not nats. Candidates are rows of the same batch, with a copy of the prefix's
cache. Tokens below the threshold are sampled at the temperature of the request; the publication always decodes greedily
(temperature 0). Every token of look-ahead is counted in `Token.discarded`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.backends.batched import BatchedBackend, BatchedModel, Sample, Slot
from justenough.errors import InputError
from justenough.signal.entropy import token_entropy

CANDIDATES: Final = 3
AHEAD: Final = 5


@dataclass(slots=True)
class _Trajectory:
    """A candidate token and its continuation."""

    token_id: int
    logprobs: list[float]

    @property
    def score(self) -> float:
        """Mean log-probability, including that of the candidate."""
        return math.fsum(self.logprobs) / len(self.logprobs)


class _Pause(NamedTuple):
    """The sample of a row that waits for the look-ahead of its candidates."""

    sample: Sample
    trajectories: list[_Trajectory]


class AdaDecBackend(BatchedBackend):
    """A model whose tokens are re-ranked by look-ahead where their entropy exceeds `threshold` bits.

    `max_tokens` limits all generated tokens, look-ahead included: without room for a look-ahead there is no pause.
    """

    def __init__(
        self,
        model: BatchedModel,
        *,
        threshold: float,
        candidates: int = CANDIDATES,
        ahead: int = AHEAD,
        concurrency: int = 8,
        threads: int = 1,
    ) -> None:
        """`threshold`: in bits; with infinity, decoding never pauses."""
        super().__init__(model, concurrency=concurrency, threads=threads)
        if candidates < 2 or ahead < 1:
            raise InputError(
                f"{candidates} candidates and {ahead} tokens ahead", hint="use at least 2 candidates and 1 token"
            )
        if math.isnan(threshold) or threshold < 0:
            raise InputError(f"the entropy threshold is {threshold} bits", hint="use a number of at least 0")
        self.threshold, self.candidates, self.ahead = threshold, candidates, ahead
        self.pauses = 0
        self.changed = 0
        """Number of pauses after which another token than the most likely one was chosen."""
        shape = "" if (candidates, ahead) == (CANDIDATES, AHEAD) else f",{candidates}x{ahead}"
        self.model = f"{self.model}/adadec@{threshold!r}{shape}"
        self._pauses: dict[Slot, _Pause] = {}
        self._ahead: dict[Slot, tuple[Slot, _Trajectory]] = {}
        """Row of a candidate → the paused row, and the candidate's trajectory."""
        self._discarded: dict[Slot, int] = {}

    @property
    def rows(self) -> int:
        """Each stream has its own row and one for each candidate, so no stream waits for the rows of another."""
        return self.concurrency * (1 + self.candidates)

    def _receive(self, slot: Slot, sample: Sample) -> None:
        if slot in self._ahead:
            self._extend(slot, sample)
            return
        logits = self.engine.logits(slot).astype(np.float64)
        logprobs = logits - np.logaddexp.reduce(logits)
        spent = slot.generated + self._discarded.get(slot, 0)
        room = min(len(slot.uniforms) - spent, self.engine.positions - len(slot.cached) - 1 - self.ahead)
        uncertain = float(token_entropy(logprobs[None], tail="full")[0]) > self.threshold
        if uncertain and room >= self.candidates * self.ahead:
            self._pause(slot, sample, logprobs)
        else:
            self._pass_on(slot, sample)

    def _pause(self, slot: Slot, sample: Sample, logprobs: NDArray[np.float64]) -> None:
        """Hold a row and start the look-ahead of its candidates; `logprobs` (V,) are those of its next token."""
        self.pauses += 1
        self.engine.hold(slot)
        best = np.argsort(-logprobs, kind="stable")[: self.candidates].tolist()
        trajectories = [_Trajectory(token_id, [float(logprobs[token_id])]) for token_id in best]
        self._pauses[slot] = _Pause(sample, trajectories)
        for trajectory in trajectories:
            if trajectory.token_id != self.tokens.end:
                path = [*slot.cached, trajectory.token_id]
                row = self.engine.admit(path, uniforms=np.zeros(self.ahead), temperature=0.0, top_k=1, source=slot)
                if row is None:
                    raise RuntimeError("a stream has fewer rows than candidates")
                self._ahead[row] = slot, trajectory

    def _extend(self, row: Slot, sample: Sample) -> None:
        """Add a token to the look-ahead of a candidate; choose after the last token of the last candidate."""
        slot, trajectory = self._ahead[row]
        trajectory.logprobs.append(sample.logprob)
        if sample.token_id != self.tokens.end and len(trajectory.logprobs) <= self.ahead:
            return
        self._end_look_ahead(row)
        if not self._rows_of(slot):
            self._choose(slot)

    def _rows_of(self, slot: Slot) -> list[Slot]:
        return [row for row, (paused, _) in self._ahead.items() if paused is slot]

    def _end_look_ahead(self, row: Slot) -> None:
        """Stop continuing a candidate and free its row."""
        self.engine.release(row)
        del self._ahead[row]

    def _choose(self, slot: Slot) -> None:
        """Continue with the first token of the best trajectory; on a tie, with the more likely token."""
        sample, trajectories = self._pauses.pop(slot)
        best = max(trajectories, key=lambda trajectory: trajectory.score)
        self.changed += best is not trajectories[0]
        discarded = sum(len(trajectory.logprobs) - 1 for trajectory in trajectories)
        self._discarded[slot] = self._discarded.get(slot, 0) + discarded
        self.engine.resume(slot, best.token_id)
        self._pass_on(slot, Sample(best.token_id, best.logprobs[0], sample.top_logprobs, discarded))

    def _pass_on(self, slot: Slot, sample: Sample) -> None:
        self._streams[slot].put_nowait(sample)
        spent = slot.generated + self._discarded.get(slot, 0)
        if sample.token_id == self.tokens.end or spent == len(slot.uniforms):
            self._release(slot)

    def _release(self, slot: Slot) -> None:
        for row in self._rows_of(slot):
            self._end_look_ahead(row)
        self._pauses.pop(slot, None)
        self._discarded.pop(slot, None)
        super()._release(slot)
