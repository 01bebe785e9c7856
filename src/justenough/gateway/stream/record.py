"""Traces of audited requests, so that `justenough calibrate` can be run on one's own traffic. Off unless asked for."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from justenough.errors import InputError, LogprobsError
from justenough.gate import GateSettings
from justenough.signal.steps import splitter
from justenough.trace import Probe, Step, Token, Trace, trace_to_json

log: Final = logging.getLogger("justenough.gateway")


class Steps:
    """The steps of one thought with their tokens' entropies, wherever the gate would have stopped it."""

    def __init__(self, settings: GateSettings) -> None:
        self.done: list[Step] = []
        self._signal = settings.signal
        self._splitter = splitter(settings.signal.splitter)
        self._texts: list[str] = []
        self._bits: list[float | None] = []
        self._own = 0
        """Tokens of the step under way, up to the last one that holds words of the thought."""
        self._over = False

    def feed(self, token: Token, words: str | None, *, over: bool) -> None:
        """Take a token of the thought, with its words; `over`: whether the thought ends within it."""
        self._texts.append(token.text)
        try:
            self._bits.append(token.bits(self._signal))
        except LogprobsError:
            self._bits.append(None)
        self._over = over
        if words and not words.isspace():
            self._own = len(self._texts)
        if words is not None and not over and self._splitter.feed(words):
            self._close(len(self._texts))

    def finish(self) -> int:
        """The thought is over; tokens after its last step that only close it, and belong to the answer."""
        rest = len(self._texts)
        if self.done and not self._own:
            return rest
        own = self._own if self._over and self._own else rest
        self._close(own)
        return rest - own

    def _close(self, count: int) -> None:
        if count:
            bits = tuple(value for value in self._bits[:count] if value is not None)
            self.done.append(Step(text="".join(self._texts[:count]), tokens=count, entropies=bits))
        self._texts, self._bits, self._own = [], [], 0


class Recorder:
    """Appends traces to one file, readable by its owner alone, up to a size."""

    def __init__(self, path: Path, *, most_bytes: int, with_text: bool) -> None:
        self.path = path
        self.traces = 0
        self.full = False
        self._most = most_bytes
        self._with_text = with_text
        try:
            self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab", buffering=0)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}", hint="choose another --record") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def add(self, trace: Trace) -> None:
        """Write a trace, unless the file would grow past its bound."""
        if self.full:
            return
        kept = trace if self._with_text else redacted(trace)
        line = json.dumps(trace_to_json(kept), ensure_ascii=False).encode() + b"\n"
        if self._file.tell() + len(line) > self._most:
            self.full = True
            log.warning("%s has reached %d bytes: nothing more is recorded", self.path, self._most)
            return
        self._file.write(line)
        self.traces += 1


def redacted(trace: Trace) -> Trace:
    """A trace without any text: answers become digests, which can still be compared."""
    steps = tuple(
        replace(
            step,
            text="",
            answer=_digest(step.answer),
            token_texts=None,
            probe=None if step.probe is None else replace(step.probe, text=None, answer=_digest(step.probe.answer)),
        )
        for step in trace.steps
    )
    return replace(trace, problem=None, steps=steps)


def answered(steps: list[Step], *, first: Probe | None, final: Probe) -> tuple[Step, ...]:
    """A thought's steps with the answer elicited after the first one and the answer that came in the end."""
    if not steps:
        return ()
    out = list(steps)
    if first is not None and len(out) > 1:
        out[0] = replace(out[0], answer=first.answer, probe=first)
    out[-1] = replace(out[-1], answer=final.answer, probe=final)
    return tuple(out)


def _digest(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()[:16]
