"""Traces of audited requests, for `justenough calibrate` on real traffic. Off unless `--record` is given."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import stat
from contextlib import suppress
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Final

from justenough.errors import InputError, LogprobsError
from justenough.gate import Action, Gate, GateSettings
from justenough.trace import Probe, Step, Token, Trace, trace_to_json

log: Final = logging.getLogger("justenough.gateway")

_BLOCK: Final = 1 << 16
_ENDLESS: Final = 1_000_000_000


class Steps:
    """All steps of one thought with their tokens' entropies, also those after the gate would have stopped."""

    def __init__(self, settings: GateSettings) -> None:
        self.done: list[Step] = []
        """Steps that are complete."""
        self._signal = settings.signal
        self._gate = Gate(replace(settings, threshold=None, max_steps=_ENDLESS))
        self._texts: list[str] = []
        self._bits: list[float] = []

    def feed(self, token: Token) -> None:
        """Take a token of the thought."""
        self._texts.append(token.text)
        try:
            bits = token.bits(self._signal)
        except LogprobsError:
            bits = None
        if bits is not None:
            self._bits.append(bits)
        if self._gate.feed(Token(text=token.text)).action is not Action.CONTINUE:
            self._close()

    def finish(self) -> int:
        """End the thought; returns the tokens after its last step that only close it and belong to the answer."""
        rest = len(self._texts)
        if self.done and "".join(self._texts).strip() in ("", "</think>"):
            return rest
        self._close()
        return 0

    def _close(self) -> None:
        if self._texts:
            text = "".join(self._texts)
            self.done.append(Step(text=text, tokens=len(self._texts), entropies=tuple(self._bits)))
        self._texts, self._bits = [], []


class Recorder:
    """Appends traces to one file, which only its owner can read, up to a size."""

    def __init__(self, path: Path, *, most_bytes: int, with_text: bool) -> None:
        self.path = path
        self.traces = 0
        self.full = False
        self._most = most_bytes
        self._with_text = with_text
        try:
            self._file = FileIO(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "a+b")
            if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                os.fchmod(self._file.fileno(), 0o600)
                _drop_half_line(self._file)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}", hint="choose another --record") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def add(self, trace: Trace) -> None:
        """Write a trace, unless the file would become larger than its bound."""
        if self.full:
            return
        line = (
            json.dumps(trace_to_json(trace if self._with_text else redacted(trace)), ensure_ascii=False).encode()
            + b"\n"
        )
        if self._file.tell() + len(line) > self._most:
            self.full = True
            log.warning("%s has reached %d bytes: nothing more is recorded", self.path, self._most)
            return
        end = self._file.tell()
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.full = True
            log.error("cannot write %s: %s; nothing more is recorded", self.path, error.strerror or error)
            with suppress(OSError):
                self._file.truncate(end)
            return
        self.traces += 1


def _drop_half_line(file: FileIO) -> None:
    """Cut a line that a process wrote only in part before it died: the next line would be joined to it."""
    end = at = file.seek(0, os.SEEK_END)
    while at > 0:
        begin = max(0, at - _BLOCK)
        file.seek(begin)
        newline = file.read(at - begin).rfind(b"\n")
        if newline >= 0:
            at = begin + newline + 1
            break
        at = begin
    if at < end:
        file.truncate(at)
    file.seek(0, os.SEEK_END)


def redacted(trace: Trace) -> Trace:
    """The trace without any text; answers become digests, which can still be compared."""
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
    """A thought's steps with the answer elicited after the first step and the answer at the end."""
    if not steps:
        return ()
    out = list(steps)
    if first is not None and len(out) > 1:
        out[0] = replace(out[0], answer=first.answer, probe=first)
    out[-1] = replace(out[-1], answer=final.answer, probe=final)
    return tuple(out)


def _digest(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()[:16]
