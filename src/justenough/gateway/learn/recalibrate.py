"""A threshold fitted anew, in the background, on what the audited share shows. It recommends; it is applied only where
the operator has said so.

Only audited requests tell what the first step was worth: they run to their end whatever the gate would have done, so
that neither the confident nor the unsure are missing. Where a client has told whether the last answer was right, the
first step's answer is right if it is the same one; where the last is wrong and the first another, that one counts as
wrong, for nobody knows better. Without labels agreement with the last answer stands in. The two kinds are never mixed:
a calibration on graded examples is followed by one on graded examples.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
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
"""Examples below which nothing is fitted: the paper's own most optimistic number."""
EVERY: Final = 10
"""New examples after which it is fitted again."""
REFITS: Final = 10
"""Planned refits of a certificate, which share its error; after them it is not fitted again."""
_MOST: Final = 5_000
"""Examples and labels kept: older ones no longer tell what happens now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One audited answer."""

    bits: float
    """Of its first step."""
    agreed: bool
    """Whether the first step's answer is the last one's."""


class Recalibration:
    """The examples of late, and what they make of the threshold."""

    def __init__(
        self,
        calibration: Calibration | None,
        *,
        adopt: Callable[[Calibration], None] | None = None,
        out: Path | None = None,
    ) -> None:
        """`adopt` takes a calibration that is to be applied; None: none ever is. `out`: written whole at each fit."""
        self.applied = 0
        self.made: Calibration | None = None
        """The last one fitted."""
        self._calibration = calibration
        self._adopt = adopt
        self._out = out
        self._examples: OrderedDict[str, Example] = OrderedDict()
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
        self._kept: str | None = None
        """Why the last one was not applied."""

    @property
    def watches(self) -> bool:
        """Whether there is a calibration to follow."""
        return self._calibration is not None

    def example(self, answer: str | None, bits: float | None, *, agreed: bool | None) -> None:
        """An audited answer; what could not be read tells nothing."""
        if answer is None or bits is None or agreed is None or self._calibration is None:
            return
        self._examples[answer] = Example(bits=bits, agreed=agreed)
        self._fresh += self._calibration.labels == "agreement" or answer in self._labels
        while len(self._examples) > _MOST:
            self._examples.popitem(last=False)

    def label(self, answer: str, *, correct: bool) -> None:
        """A client says whether an answer was right."""
        if self._calibration is None:
            return
        self._fresh += self._calibration.labels == "graded" and answer in self._examples
        self._labels[answer] = correct
        while len(self._labels) > _MOST:
            self._labels.popitem(last=False)

    def forget(self) -> None:
        """The model is another one now: what was seen before tells nothing of it."""
        self._examples.clear()
        self._labels.clear()
        self._fresh = 0

    @property
    def due(self) -> bool:
        """Whether it is time to fit anew."""
        if self._fitting or self._fresh < EVERY or self._calibration is None:
            return False
        examples = len(self.traces())
        if self._calibration.guarantee is None:
            return examples >= self._needed
        if unrenewable(self._calibration) is not None:
            return False
        # Each refit spends a part of the error, so it waits until the examples suffice and half of them are new.
        return self._fits < REFITS and examples >= self._needed and self._fresh >= examples / 2

    def traces(self) -> list[Trace]:
        """The examples of the calibration's own kind, as traces of a first and a last step."""
        calibration = self._calibration
        if calibration is None:
            return []
        graded = calibration.labels == "graded"
        return [
            _trace(key, example, calibration, correct=self._labels.get(key))
            for key, example in self._examples.items()
            if not graded or key in self._labels
        ]

    async def refit(self) -> None:
        """Fit, off the event loop; write and apply as far as the operator has said."""
        calibration = self._calibration
        if calibration is None:
            return
        self._fitting, self._fresh = True, 0
        self._fits += 1
        try:
            made = await asyncio.to_thread(fitted, self.traces(), calibration)
            if self._out is not None:
                await asyncio.to_thread(write_text, self._out, made.dumps())
        except JustEnoughError as error:
            self._refused = str(error)
            log.warning("recalibration: %s", error)
            return
        finally:
            self._fitting = False
        self.made, self._refused = made, None
        self._kept = _unfit(made)
        if self._adopt is None:
            self._kept = "not asked for: --apply-recalibration"
        elif self._kept is None:
            log.warning(
                "recalibrated on %d examples: the threshold is %s bits now, it was %s",
                made.n,
                made.threshold,
                calibration.threshold,
            )
            self._calibration = made
            self.applied += 1
            self._adopt(made)

    def summary(self) -> dict[str, Json]:
        """For the status."""
        calibration, made = self._calibration, self.made
        applied = None if calibration is None else calibration.threshold
        out: dict[str, Json] = {
            "watched": self.watches,
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
        if made is None:
            return out
        both = made.threshold is not None and applied is not None
        fit: dict[str, Json] = {
            "n": made.n,
            "n_right": made.n_right,
            "verdict": made.verdict,
            "cohens_d": None if made.cohens_d is None else dict(made.cohens_d._asdict()),
            "auroc": None if made.auroc is None else dict(made.auroc._asdict()),
            "method": made.method,
            "threshold": made.threshold,
            "difference": made.threshold - applied if both else None,  # type: ignore[operator]
            "thresholds": dict(made.thresholds),
            "guarantee": made.guarantee,
            "warnings": list(made.warnings),
            "not_applied": self._kept,
        }
        return out | {"fitted": fit}


def fitted(traces: list[Trace], calibration: Calibration) -> Calibration:
    """The calibration's successor on other examples: same method, level, signal and rules.

    Raises what `calibrate` raises, and `InputError` for a certificate that these examples of step 1 cannot renew.
    """
    if (reason := unrenewable(calibration)) is not None:
        raise InputError(reason, hint="calibrate anew: justenough calibrate")
    made = calibrate(
        traces,
        method=calibration.method,
        labels=calibration.labels,
        max_steps=calibration.max_steps,
        max_harm=calibration.max_harm,
        confidence=calibration.confidence,
        refits=REFITS,
    )
    return replace(
        made,
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


def _trace(key: str, example: Example, calibration: Calibration, *, correct: bool | None) -> Trace:
    # The bits are pooled already, as the calibration's signal has it: here they are one number.
    signal: Signal = replace(calibration.signal, pooling="mean", combination=None)
    first = None if correct is None else correct and example.agreed
    return Trace(
        id=key,
        task="gateway",
        model=calibration.model,
        shape=calibration.shape,
        signal=signal,
        steps=(
            Step(answer="last" if example.agreed else "other", correct=first, tokens=1, entropy=example.bits),
            Step(answer="last", correct=correct, tokens=1),
        ),
    )


def _unfit(made: Calibration) -> str | None:
    """Why a calibration may not be applied without anyone looking at it; None where it may."""
    if made.guarantee is None and made.verdict != "separates":
        return f"its verdict is: {made.verdict}"
    return None
