"""Work under way, kept line by line: what is appended survives the process; half a line at the end is dropped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO

from justenough.errors import InputError, Interrupted, SettingsMismatch, TraceFormatError
from justenough.files import write_error
from justenough.trace import Trace, trace_from_json, trace_to_json


class Journal:
    """The finished problems of work under way, one JSON line each after a header that names the settings."""

    def __init__(self, path: Path, *, digest: str) -> None:
        self._path = path
        self._digest = digest
        self.traces: dict[str, Trace] = {}

    def __enter__(self) -> Journal:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b")
        except OSError as error:
            raise write_error(self._path, error) from error
        try:
            _lock(self._file, self._path)
            self._load()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        empty = not self.traces
        self._file.close()
        if empty:
            self._path.unlink(missing_ok=True)

    def append(self, trace: Trace) -> None:
        """Keep a trace; it survives the process as soon as this returns."""
        line = json.dumps(trace_to_json(trace), ensure_ascii=False, allow_nan=False)
        try:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise Interrupted(
                f"{write_error(self._path, error)}; {len(self.traces)} problems are kept there",
                hint="the same command continues from there",
            ) from error
        self.traces[trace.id] = trace

    def _load(self) -> None:
        self._file.seek(0)
        sound = 0
        for number, raw in enumerate(self._file, 1):
            # A process that was killed may leave half a line at the end, never before it.
            if not raw.endswith(b"\n"):
                break
            if number == 1:
                self._check_header(raw)
            else:
                trace = self._trace(raw, number)
                self.traces[trace.id] = trace
            sound += len(raw)
        self._file.truncate(sound)
        self._file.seek(0, os.SEEK_END)
        if not sound:
            self._file.write(json.dumps({"justenough": "journal", "settings": self._digest}).encode() + b"\n")
            self._file.flush()

    def _check_header(self, raw: bytes) -> None:
        try:
            header = json.loads(raw)
        except ValueError:
            header = None
        if not isinstance(header, dict) or header.get("justenough") != "journal":
            raise TraceFormatError("is no journal of collected traces", path=str(self._path), line=1)
        if header.get("settings") != self._digest:
            raise SettingsMismatch(
                f"{self._path} holds unfinished work of other settings", hint="choose another --out, or delete it"
            )

    def _trace(self, raw: bytes, number: int) -> Trace:
        try:
            return trace_from_json(json.loads(raw))
        except (ValueError, TraceFormatError) as error:
            raise TraceFormatError(str(error), path=str(self._path), line=number, hint="delete the line") from error


def _lock(file: IO[bytes], path: Path) -> None:
    """Refuse a second collector on the same output; the lock goes with the process."""
    try:
        import fcntl
    except ImportError:  # Windows has no advisory locks of this kind
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InputError(f"{path} is being written by another process", hint="wait for it, or choose --out") from error
