"""The finished problems of unfinished work, one line each. A line survives the process; half a line is dropped."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from justenough.errors import InputError, Interrupted, SettingsMismatch, TraceFormatError
from justenough.files import write_error
from justenough.runner.shaping import other_settings
from justenough.stats.text import counted
from justenough.trace import Json, Trace, trace_from_json, trace_to_json
from justenough.trace.files import TraceFile, first_of


def journal_of(out: Path) -> Path:
    """The journal beside an output; the same one for every symbolic link to it."""
    try:
        target = out.resolve()
    except (RuntimeError, OSError) as error:
        # Python 3.11 and 3.12 raise `RuntimeError` for links that lead to each other.
        raise InputError(f"cannot write {out}: {error}", hint="choose another --out") from error
    return target.with_name(target.name + ".part.jsonl")


class Lines(Mapping[str, Trace]):
    """The traces of a journal by their ids. Only the places of their lines are in memory."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.places: dict[str, int] = {}
        """Where each line begins."""

    def __getitem__(self, identity: str) -> Trace:
        return self._journal.read(self.places[identity])

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


class Journal:
    """The finished problems of unfinished work: a header with the settings, then one JSON line for each problem."""

    def __init__(self, path: Path, *, digest: str, shaping: Mapping[str, Json] | None = None) -> None:
        """`shaping` is what the digest stands for, for the error about a journal of other settings."""
        self._path = path
        self._digest = digest
        self._shaping = dict(shaping or {})
        self._deleted = False
        self.traces = Lines(self)

    def __enter__(self) -> Journal:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _locked(self._path)
        except OSError as error:
            raise write_error(self._path, error) from error
        try:
            self._load()
        except OSError as error:
            self._close()
            raise write_error(self._path, error) from error
        except InputError:
            self._close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if not self.traces:
            self.delete()
        self._close()

    def delete(self) -> None:
        """Delete the file while it is locked, unless it is another process's file by now."""
        if not self._deleted and _is_same(self._file, self._path):
            self._path.unlink()
        self._deleted = True

    def _close(self) -> None:
        # Closing tries again to write what a full disk has refused.
        with suppress(OSError):
            self._file.close()

    def append(self, trace: Trace) -> None:
        """Write a trace; it survives the process as soon as this returns."""
        line = json.dumps(trace_to_json(trace), ensure_ascii=False, allow_nan=False)
        try:
            if not _is_same(self._file, self._path):
                raise FileNotFoundError(errno.ENOENT, "it was deleted or replaced meanwhile")
            place = self._file.seek(0, os.SEEK_END)
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        except OSError as error:
            reason = error.strerror or error
            raise Interrupted(
                f"cannot write {self._path}: {reason}; the file keeps {counted(len(self.traces), 'problem')}",
                hint=f"{write_error(self._path, error).hint}; the same command continues from there",
            ) from error
        self.traces.places[trace.id] = place

    def read(self, place: int) -> Trace:
        """The trace of the line that begins at a place."""
        self._file.seek(place)
        return self._trace(self._file.readline(), place)

    def _load(self) -> None:
        self._file.seek(0)
        sound, mismatch = 0, None
        for number, raw in enumerate(self._file, 1):
            # A process that was killed may leave half a line at the end, never before it.
            if not raw.endswith(b"\n"):
                break
            if number == 1:
                mismatch = self._mismatch(raw)
            elif mismatch is not None:
                raise mismatch
            else:
                self.traces.places[self._trace(raw, number).id] = sound
            sound += len(raw)
        if mismatch is not None:
            # A process was killed before it finished a problem: there is nothing to keep.
            sound = 0
        self._file.truncate(sound)
        self._file.seek(0, os.SEEK_END)
        if not sound:
            header = {"justenough": "journal", "settings": self._digest, "run": self._shaping}
            self._file.write(json.dumps(header).encode() + b"\n")
            self._file.flush()

    def _mismatch(self, raw: bytes) -> SettingsMismatch | None:
        """The error about the settings in a header, if they are others; raises for a line that is no header."""
        try:
            header = json.loads(raw)
        except ValueError:
            header = None
        if not isinstance(header, dict) or header.get("justenough") != "journal":
            raise TraceFormatError("is no journal of collected traces", path=str(self._path), line=1)
        run = header.get("run")
        is_same = header.get("settings") == self._digest
        return None if is_same else other_settings(self._path, run if isinstance(run, dict) else {}, self._shaping)

    def _trace(self, raw: bytes, number: int) -> Trace:
        try:
            return trace_from_json(json.loads(raw))
        except (ValueError, TraceFormatError) as error:
            raise TraceFormatError(str(error), path=str(self._path), line=number, hint="delete the line") from error


def begun(out: Path) -> Trace | None:
    """A trace that an earlier call has written to an output or to its journal; None if there is none."""
    if out.is_file():
        return first_of(TraceFile(out))
    try:
        with journal_of(out).open("rb") as file:
            _, line = file.readline(), file.readline()
        return trace_from_json(json.loads(line)) if line.endswith(b"\n") else None
    except (OSError, ValueError, TraceFormatError):
        # The journal itself reports what is wrong with it.
        return None


def _locked(path: Path) -> IO[bytes]:
    """Open the journal and lock it until it is closed; raises `InputError` if another process has locked it."""
    while True:
        file = path.open("a+b")
        try:
            _lock(file, path)
            # Between opening and locking, the process that had the lock may have deleted the file.
            if _is_same(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _is_same(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: IO[bytes], path: Path) -> None:
    """Refuse a second process on the same output. The lock ends with the process."""
    try:
        import fcntl
    except ImportError:  # Windows has no advisory locks of this kind
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InputError(f"{path} is being written by another process", hint="wait for it, or choose --out") from error
