"""Recalibrates in the background on audited requests. The result is applied only if the operator has allowed it.

Audited requests run to their end whatever the gate decides, so they show how good the first step was. If a client has
labelled the last answer as right, the first step is right if its answer is the same. If the last answer is wrong and
the first one differs, the first one counts as wrong. Without labels, agreement with the last
answer is used. The two kinds are never mixed: a calibration on graded examples is only replaced by another such one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from justenough.calibration.calibration import Calibration, calibrate
from justenough.calibration.certified import CONFIDENCE, MAX_HARM, RiskControlled
from justenough.errors import InputError, JustEnoughError
from justenough.files import write_text
from justenough.signal.signal import Signal
from justenough.trace import Json, Step, Trace

log: Final = logging.getLogger("justenough.gateway")

LEAST: Final = 10
"""Fewest examples of a fit: the most optimistic number in the paper."""
EVERY: Final = 10
"""New examples before the next fit."""
REFITS: Final = 10
"""Planned refits of a certificate, which share its error; after them it is not fitted again."""
_MOST: Final = 5_000
"""Examples and labels that are kept; older ones are out of date."""
_SHOWN: Final = (
    *("n", "n_right", "verdict", "cohens_d", "auroc", "method", "threshold", "thresholds", "guarantee", "warnings"),
)
"""Members of a new calibration in the status."""


class Recalibration:
    """The recent examples, and the calibration fitted on them."""

    def __init__(
        self,
        calibration: Calibration | None,
        *,
        adopt: Callable[[Calibration], None] | None = None,
        out: Path | None = None,
    ) -> None:
        """`adopt` applies a calibration, None: none is applied; `out`: file for each new calibration."""
        self.applied = 0
        self.fitted: Calibration | None = None
        self._calibration = calibration
        self._adopt = adopt
        self._out = out
        self._examples: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        """Bits of the first step, and whether its answer was the last one, by the answer's id."""
        self._labels: OrderedDict[str, bool] = OrderedDict()
        self._fresh = 0
        self._fits = 0
        self._fitting = False
        self._refused = None if calibration is None else unrenewable(calibration)
        self._needed = LEAST
        """Examples below which nothing is fitted."""
        if calibration is not None and calibration.guarantee is not None and self._refused is None:
            level = calibration.max_harm or MAX_HARM, calibration.confidence or CONFIDENCE
            self._needed = max(LEAST, RiskControlled(*level, REFITS).labels_needed())
        self._not_applied: str | None = None

    def example(self, answer: str | None, bits: float | None, *, agreed: bool | None) -> None:
        """Add an audited answer, unless something about it is unknown."""
        if answer is None or bits is None or agreed is None or self._calibration is None:
            return
        if answer not in self._examples:
            self._fresh += self._calibration.labels == "agreement" or answer in self._labels
        self._examples[answer] = (bits, agreed)
        while len(self._examples) > _MOST:
            self._examples.popitem(last=False)

    def label(self, answer: str, *, correct: bool) -> None:
        """Add a client's label of an answer."""
        if self._calibration is None:
            return
        if answer not in self._labels:
            self._fresh += self._calibration.labels == "graded" and answer in self._examples
        self._labels[answer] = correct
        while len(self._labels) > _MOST:
            self._labels.popitem(last=False)

    def forget(self) -> None:
        """Drop all examples and labels, because the model has changed."""
        self._examples.clear()
        self._labels.clear()
        self._fresh = 0

    @property
    def due(self) -> bool:
        """Whether it is time for a new fit."""
        if self._fitting or self._fresh < EVERY or self._calibration is None:
            return False
        examples = len(self.traces())
        if examples < self._needed or unrenewable(self._calibration) is not None:
            return False
        # Each refit of a certificate spends a part of its error, so half of the examples must be new.
        return self._calibration.guarantee is None or (self._fits < REFITS and self._fresh >= examples / 2)

    def traces(self) -> list[Trace]:
        """The examples that fit the calibration's kind, as traces with a first and a last step."""
        calibration = self._calibration
        if calibration is None:
            return []
        graded = calibration.labels == "graded"
        return [
            _trace(key, bits, calibration, agreed=agreed, correct=self._labels.get(key))
            for key, (bits, agreed) in self._examples.items()
            if not graded or key in self._labels
        ]

    async def refit(self) -> None:
        """Fit in a thread; write and apply the result if the operator has allowed it."""
        calibration = self._calibration
        if calibration is None:
            return
        self._fitting, self._fresh = True, 0
        self._fits += 1
        try:
            new = await asyncio.to_thread(fitted, self.traces(), calibration)
            if self._out is not None:
                await asyncio.to_thread(write_text, self._out, new.dumps())
        except JustEnoughError as error:
            self._refused = str(error)
            log.warning("recalibration: %s", error)
            return
        finally:
            self._fitting = False
        self.fitted, self._refused = new, None
        separates = new.guarantee is not None or new.verdict == "separates"
        self._not_applied = None if separates else f"its verdict is: {new.verdict}"
        if self._adopt is None:
            self._not_applied = "not allowed: --apply-recalibration"
        elif self._not_applied is None:
            log.warning(
                "recalibrated on %d examples: the threshold changed to %s bits from %s",
                new.n,
                new.threshold,
                calibration.threshold,
            )
            self._calibration = new
            self.applied += 1
            self._adopt(new)

    def summary(self) -> dict[str, Json]:
        """The recalibration for the status."""
        calibration, new = self._calibration, self.fitted
        applied = None if calibration is None else calibration.threshold
        out: dict[str, Json] = {
            "watched": calibration is not None,
            "labels": None if calibration is None else calibration.labels,
            "examples": len(self._examples),
            "labelled": sum(key in self._labels for key in self._examples),
            "least": self._needed,
            "fits": self._fits,
            "planned_fits": None if calibration is None or calibration.guarantee is None else REFITS,
            "applied_threshold": applied,
            "applied": self.applied,
            "refused": self._refused,
            "fitted": None,
        }
        if new is None:
            return out
        members = new.to_json()
        fit = {key: members.get(key) for key in _SHOWN}
        fit["difference"] = None if new.threshold is None or applied is None else new.threshold - applied
        return out | {"fitted": fit | {"not_applied": self._not_applied}}


def fitted(traces: list[Trace], calibration: Calibration) -> Calibration:
    """The calibration's successor on other examples: same method, level, signal and rules.

    Raises what `calibrate` raises, and `InputError` for a certificate that these examples of step 1 cannot renew.
    """
    if (reason := unrenewable(calibration)) is not None:
        raise InputError(reason, hint="calibrate anew: justenough calibrate")
    fresh = calibrate(
        traces,
        method=calibration.method,
        labels=calibration.labels,
        max_steps=calibration.max_steps,
        max_harm=calibration.max_harm,
        confidence=calibration.confidence,
        refits=REFITS,
    )
    return replace(
        fresh,
        decide=calibration.decide,
        min_tokens=calibration.min_tokens,
        patience=calibration.patience,
        signal=calibration.signal,
        prompts=calibration.prompts,
    )


def unrenewable(calibration: Calibration) -> str | None:
    """Why audited examples cannot renew a calibration's certificate; None where they can, or there is none."""
    if calibration.guarantee is None:
        return None
    if calibration.max_harm is None or calibration.confidence is None:
        return "the calibration does not state the level of its certificate"
    if calibration.decide == "every":
        return "the calibration's certificate is for every step, and the examples are of step 1"
    if calibration.method == "net" and calibration.min_tokens:
        return "the certificate of a net change depends on the minimum of tokens, and the examples have no tokens"
    return None


def _trace(key: str, bits: float, calibration: Calibration, *, agreed: bool, correct: bool | None) -> Trace:
    # The bits are already pooled to one number.
    signal: Signal = replace(calibration.signal, pooling="mean", combination=None)
    first = None if correct is None else correct and agreed
    return Trace(
        id=key,
        task="gateway",
        model=calibration.model,
        shape=calibration.shape,
        signal=signal,
        steps=(
            Step(answer="last" if agreed else "other", correct=first, tokens=1, entropy=bits),
            Step(answer="last", correct=correct, tokens=1),
        ),
    )
