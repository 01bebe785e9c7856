"""Writes traces of audited requests (`--record`), so that `justenough calibrate` can use real traffic."""

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
from justenough.gate import GateSettings
from justenough.signal.steps import splitter
from justenough.trace import Probe, Step, Token, Trace, trace_to_json

log: Final = logging.getLogger("justenough.gateway")

_BLOCK: Final = 1 << 16


class Steps:
    """All steps of one thought with the entropies of their tokens, also the steps after a stop."""

    def __init__(self, settings: GateSettings) -> None:
        self.done: list[Step] = []
        """Steps that are complete."""
        self._signal = settings.signal
        self._splitter = splitter(settings.signal.splitter)
        self._texts: list[str] = []
        self._bits: list[float | None] = []
        self._own = 0
        """Tokens of the current step, up to the last one with words of the thought."""
        self._over = False

    def feed(self, token: Token, words: str | None, *, over: bool) -> None:
        """Take a token of the thought and its words; `over`: whether the thought ends in this token."""
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
        """End the thought; returns the number of tokens that only close it and belong to the answer."""
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
    """Appends traces to one file, up to a size; only the owner can read the file."""

    def __init__(self, path: Path, *, most_bytes: int, with_text: bool) -> None:
        self.path = path
        self.traces = 0
        self.full = False
        self._most = most_bytes
        self._with_text = with_text
        self._open()

    def _open(self) -> None:
        try:
            self._file = FileIO(os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "a+b")
            if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                self._file.close()
                raise OSError(errno.EINVAL, "it is not a file")
            self._file.seek(0)
            if self._file.read(1) not in (b"", b"{"):
                # Another kind of file would be damaged by the cut of a half line, and by each trace.
                self._file.close()
                raise OSError(errno.EINVAL, "it does not hold traces as JSON Lines")
            os.fchmod(self._file.fileno(), 0o600)
            _end_last_line(self._file)
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}", hint="choose another --record") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def add(self, trace: Trace) -> None:
        """Write a trace, unless the file would become too large."""
        if self.full:
            return
        value = trace_to_json(trace if self._with_text else redacted(trace))
        line = json.dumps(value, ensure_ascii=False).encode() + b"\n"
        try:
            if not self._is_in_place():
                self._file.close()
                self._open()
                log.warning("%s was moved or deleted: a new file is begun", self.path)
        except InputError as error:
            self.full = True
            log.error("%s; nothing more is recorded", error)
            return
        end = os.fstat(self._file.fileno()).st_size
        if end + len(line) > self._most:
            self.full = True
            log.warning("%s has reached %d bytes: nothing more is recorded", self.path, self._most)
            return
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.full = True
            log.error("cannot write %s: %s; nothing more is recorded", self.path, error.strerror or error)
            with suppress(OSError):
                self._file.truncate(end)
            return
        self.traces += 1

    def _is_in_place(self) -> bool:
        """Whether the path still leads to the open file."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))
        except OSError:
            return False


def _end_last_line(file: FileIO) -> None:
    """Cut off a last line that a process did not finish, and end a whole one, so that no line is joined to the next."""
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
        file.seek(at)
        try:
            json.loads(file.read())
        except (ValueError, RecursionError):
            file.truncate(at)
        else:
            # An editor may leave out the end of the last line.
            file.write(b"\n")
    file.seek(0, os.SEEK_END)


def redacted(trace: Trace) -> Trace:
    """The trace without any text; answers become digests, so they can still be compared."""
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
    """The steps of a thought, with the elicited answer in the first one and the final answer in the last one."""
    if not steps:
        return ()
    out = list(steps)
    if first is not None and len(out) > 1:
        out[0] = replace(out[0], answer=first.answer, probe=first)
    out[-1] = replace(out[-1], answer=final.answer, probe=final)
    return tuple(out)


def _digest(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()[:16]
