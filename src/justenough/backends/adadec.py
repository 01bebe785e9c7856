"""`adadec[:NAME[@BITS]]`: the embedded model under AdaDec (arXiv 2506.08980), which looks ahead where it is unsure.

Theirs: where the entropy of the next token exceeds a learned threshold, decoding pauses; each of the B = 3 likeliest
tokens is continued greedily by up to L = 5 tokens; the one whose trajectory has the highest mean log-probability is
taken, its look-ahead is thrown away, and decoding goes on. The threshold is where a logistic regression of "is the
reference token ranked first?" on the entropy decides (`python -m training.adadec`).

Ours: the model and its texts (theirs are code models), bits instead of nats, candidates decoded as rows of the same
batch with the prefix's cache copied, and what is below the threshold drawn at the request's temperature, where they
decode greedily throughout (temperature 0 is theirs). Every token of look-ahead is counted: `Token.discarded`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from justenough.backends.registry import Options
from justenough.errors import InputError
from justenough.signal.entropy import token_entropy
from justenough.toy.backend import EmbeddedBackend
from justenough.toy.engine import Sample, Slot
from justenough.toy.tokens import packaged

CANDIDATES: Final = 3
AHEAD: Final = 5


@dataclass(slots=True)
class _Trajectory:
    """A candidate and what follows it."""

    token_id: int
    logprobs: list[float]

    @property
    def score(self) -> float:
        """Mean log-probability, the candidate's own included."""
        return math.fsum(self.logprobs) / len(self.logprobs)


@dataclass(slots=True)
class _Pause:
    """A row that waits for the look-ahead of its candidates."""

    sample: Sample
    logprobs: NDArray[np.float64]
    trajectories: list[_Trajectory] = field(default_factory=list)
    rows: dict[Slot, _Trajectory] = field(default_factory=dict)
    """Candidates that are still being continued."""


class AdaDecBackend(EmbeddedBackend):
    """The embedded model, its tokens re-ranked by look-ahead where their entropy exceeds `threshold` bits.

    `max_tokens` bounds all that is generated: where no room is left for a look-ahead, there is no pause.
    """

    def __init__(
        self,
        name: str = "embedded",
        *,
        threshold: float | None = None,
        candidates: int = CANDIDATES,
        ahead: int = AHEAD,
        concurrency: int = 8,
        threads: int = 1,
    ) -> None:
        """`threshold` None: the learned one that ships with the model; infinite: never pauses."""
        super().__init__(name, concurrency=concurrency, threads=threads)
        if candidates < 2 or ahead < 1:
            raise InputError(f"{candidates} candidates, {ahead} tokens ahead", hint="at least 2 and 1")
        self.threshold = learned_threshold(name) if threshold is None else threshold
        if math.isnan(self.threshold) or self.threshold < 0:
            raise InputError(f"an entropy threshold of {self.threshold} bits", hint="at least 0")
        self.candidates, self.ahead = candidates, ahead
        self.pauses = self.changed = 0
        """Pauses so far, and those after which another token than the likeliest was taken."""
        shape = "" if (candidates, ahead) == (CANDIDATES, AHEAD) else f",{candidates}x{ahead}"
        self.model = f"{self.model}/adadec@{self.threshold!r}{shape}"
        self._paused: dict[Slot, _Pause] = {}
        self._asked_by: dict[Slot, Slot] = {}
        self._discarded: dict[Slot, int] = {}

    @property
    def rows(self) -> int:
        """Each stream needs its own row and one for each candidate, so that none waits for another's."""
        return self.concurrency * (1 + self.candidates)

    async def _heard(self, slot: Slot, sample: Sample) -> None:
        if (main := self._asked_by.get(slot)) is not None:
            await self._looked(main, slot, sample)
            return
        logits = self.engine.logits(slot).astype(np.float64)
        shifted = logits - logits.max()
        logprobs = shifted - np.log(np.exp(shifted).sum())
        spent = slot.generated + self._discarded.get(slot, 0)
        room = min(len(slot.uniforms) - spent, self.engine.positions - len(slot.cached) - 1 - self.ahead)
        unsure = float(token_entropy(logprobs[None], tail="full")[0]) > self.threshold
        if unsure and room >= self.candidates * self.ahead:
            await self._pause(slot, sample, logprobs)
        else:
            await self._hand_on(slot, sample)

    async def _pause(self, slot: Slot, sample: Sample, logprobs: NDArray[np.float64]) -> None:
        self.pauses += 1
        self.engine.hold(slot)
        pause = _Pause(sample, logprobs)
        self._paused[slot] = pause
        for token_id in np.argsort(-logprobs, kind="stable")[: self.candidates].tolist():
            trajectory = _Trajectory(token_id, [float(logprobs[token_id])])
            pause.trajectories.append(trajectory)
            if token_id == self._tokens.end:
                continue
            row = self.engine.admit(
                [*slot.cached, token_id], uniforms=np.zeros(self.ahead), temperature=0.0, top_k=1, source=slot
            )
            if row is None:
                raise RuntimeError("a stream has fewer rows than candidates")
            pause.rows[row] = trajectory
            self._asked_by[row] = slot
        if not pause.rows:
            await self._choose(slot)

    async def _looked(self, main: Slot, row: Slot, sample: Sample) -> None:
        """Take a token of look-ahead."""
        trajectory = self._paused[main].rows[row]
        trajectory.logprobs.append(sample.logprob)
        if sample.token_id == self._tokens.end or len(trajectory.logprobs) > self.ahead:
            self._forget(main, row)
            if not self._paused[main].rows:
                await self._choose(main)

    def _forget(self, main: Slot, row: Slot) -> None:
        """This candidate is followed no further."""
        self.engine.release(row)
        del self._paused[main].rows[row], self._asked_by[row]

    async def _choose(self, slot: Slot) -> None:
        """Go on with the best trajectory's first token; the likelier one where two are equal."""
        pause = self._paused.pop(slot)
        best = max(pause.trajectories, key=lambda trajectory: trajectory.score)
        self.changed += best is not pause.trajectories[0]
        discarded = sum(len(trajectory.logprobs) - 1 for trajectory in pause.trajectories)
        self._discarded[slot] = self._discarded.get(slot, 0) + discarded
        self.engine.resume(slot, best.token_id)
        await self._hand_on(slot, Sample(best.token_id, best.logprobs[0], pause.sample.top_logprobs, discarded))

    async def _hand_on(self, slot: Slot, sample: Sample) -> None:
        self._streams[slot].put_nowait(sample)
        spent = slot.generated + self._discarded.get(slot, 0)
        if sample.token_id == self._tokens.end or spent == len(slot.uniforms):
            await self._release(slot)

    async def _release(self, slot: Slot) -> None:
        if slot in self._paused:
            for row in list(self._paused[slot].rows):
                self._forget(slot, row)
            del self._paused[slot]
        self._discarded.pop(slot, None)
        await super()._release(slot)


def learned_file(name: str) -> str:
    """Where the learned threshold of an embedded model stands, beside its weights."""
    return f"{name}.adadec.json"


def learned_threshold(name: str) -> float:
    """The threshold in bits that was learned for one of the embedded models."""
    return float(json.loads(packaged(learned_file(name)).read_text(encoding="utf-8"))["threshold"])


def open_adadec(model: str, options: Options) -> AdaDecBackend:
    """`adadec[:NAME[@BITS]]`; without a number the learned threshold."""
    name, at, number = model.partition("@")
    try:
        threshold = float(number) if at else None
    except ValueError as error:
        raise InputError(f"{number!r} is no threshold", hint="--model adadec:embedded@0.5, in bits") from error
    concurrency = options.concurrency or 8
    return AdaDecBackend(name or "embedded", threshold=threshold, concurrency=concurrency, threads=options.threads)
