"""Files: written whole or not at all; their JSON values are read with errors that name key, value and expectation."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final, TypeVar, cast

import msgspec

from justenough.errors import InputError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
T = TypeVar("T")

MOST_DEPTH: Final = 100
"""Lists and objects inside each other; more than that would exhaust the stack of Python."""

MOST_BYTES: Final = 64_000_000
"""Bytes of a JSON file that is read at once. Python needs up to twenty times more for its values."""
MOST_LINE: Final = 256_000_000
"""Bytes of one line of JSONL."""

_PLACE: Final = re.compile(r"\.(\w+)|\[(\d+)\]")
_EXPECTED: Final = re.compile(r"Expected `([^`]+)`(?: (>=|<=) (\S+))?")
_WORDS: Final = {
    "int": "a whole number",
    "float": "a finite number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
_BOUNDS: Final = {">=": "at least", "<=": "at most"}

_HINTS: Final = {
    errno.ENOSPC: "the disk is full: free some space, or choose another --out",
    errno.EDQUOT: "the disk quota is used up: free some space, or choose another --out",
    errno.EFBIG: "the file would become larger than the limit of this process: raise `ulimit -f`",
    errno.EROFS: "the file system is read-only: choose another --out",
    errno.EACCES: "there is no permission to write there: choose another --out",
    errno.EPERM: "there is no permission to write there: choose another --out",
    errno.EISDIR: "that is a folder: add a file name",
}


def write_error(path: Path, error: OSError) -> InputError:
    """The error for a file that cannot be written, with a hint that fits the cause."""
    hint = _HINTS.get(error.errno or 0, "choose another --out")
    return InputError(f"cannot write {path}: {error.strerror or error}", hint=hint)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary file that replaces `path` when the block ends without an error; nothing changes otherwise.

    A symbolic link is followed. A device or a pipe is written directly; `-` is standard output. Temporary files that a
    killed process left for the same target are deleted. Raises `InputError` if the operating system refuses to write.
    """
    try:
        if is_stdout(path):
            with tempfile.TemporaryDirectory() as folder:
                yield Path(folder) / "output"
                sys.stdout.flush()
                # Not by its name: to open a file again would cut what stands before in it.
                with (Path(folder) / "output").open("rb") as written, open(1, "wb", closefd=False) as stdout:
                    shutil.copyfileobj(written, stdout)
            return
        target = path.resolve()
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # What /dev/stderr resolves to has no name if it is a pipe.
        if path.exists() and not path.is_file():
            yield path
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        _delete_leftovers(target)
        with tempfile.NamedTemporaryFile(
            prefix=_prefix(target), suffix=".partial", dir=target.parent, delete=False
        ) as file:
            _lock(file)
            temporary = Path(file.name)
            try:
                yield temporary
                _replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
    except BrokenPipeError:
        raise  # The reader has left.
    except OSError as error:
        raise write_error(path, error) from error


def is_stdout(path: Path) -> bool:
    """Whether a path names standard output."""
    return str(path) in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all; raises `InputError` if it cannot be written."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _replace(temporary: Path, target: Path) -> None:
    # Temporary files are readable by their owner only; results are meant to be shared.
    umask = os.umask(0)
    os.umask(umask)
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~umask
    temporary.chmod(mode)
    with temporary.open("rb") as written:
        os.fsync(written.fileno())
    temporary.replace(target)


def _prefix(target: Path) -> str:
    # A name may have 255 bytes, and a character up to four.
    return f".{target.name[:50]}."


def _delete_leftovers(target: Path) -> None:
    """Delete temporary files of this target that no living process has locked."""
    prefix = _prefix(target)
    for name in os.listdir(target.parent):
        leftover = target.parent / name
        if name.startswith(prefix) and name.endswith(".partial") and leftover.is_file():
            # It may vanish meanwhile, or belong to somebody else.
            with suppress(OSError), leftover.open("rb") as file:
                if _lock(file):
                    leftover.unlink()


def _lock(file: IO[bytes]) -> bool:
    """Lock an open file until it is closed; False if another process holds the lock, or there are no locks."""
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def require_writable(folder: Path) -> None:
    """Make a folder before long work; raises `InputError` if no file could be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise write_error(folder, error) from error


def load_json(path: Path, *, hint: str) -> Json:
    """The JSON value of a file; raises `InputError` if it cannot be read, is not JSON or is nested too deeply."""
    try:
        value = cast("Json", json.loads(read_small(path, hint=hint)))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}", hint=hint) from error
    if not is_shallow(value):
        raise InputError(f"{path} is nested too deeply", hint=hint)
    return value


def read_small(path: Path, *, hint: str) -> bytes:
    """The bytes of a file; raises `InputError` if it cannot be read or is far larger than any such file."""
    try:
        # To open a pipe would wait for its writer.
        if path.exists() and not path.is_file():
            raise InputError(f"cannot read {path}: it is not a file", hint=hint)
        if (size := path.stat().st_size) > MOST_BYTES:
            raise InputError(f"{path} has {size} bytes, at most {MOST_BYTES} are read", hint=hint)
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", hint=hint) from error


def lines_of(file: IO[bytes], path: Path, *, most: int = MOST_LINE) -> Iterator[bytes]:
    """The lines of an open file; raises `InputError` for one that would fill the memory."""
    number = 0
    while line := file.readline(most + 1):
        number += 1
        if len(line) > most:
            raise InputError(f"{path}:{number}: the line has more than {most} bytes", hint="one value for each line")
        yield line


def read_as(value: object, kind: type[T], *, where: str, hint: str = "") -> T:
    """Convert a JSON value or the rows of a database to a type that msgspec knows.

    Raises `InputError` that begins with `where`.
    """
    try:
        return msgspec.convert(value, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise InputError(_sentence(str(error), value, where), hint=hint) from error
    except UnicodeEncodeError as error:
        raise InputError(f"{where} has half of a character, {shown(error.object[error.start])}", hint=hint) from error


def shown(value: object) -> str:
    """The value for an error message, at most 80 characters."""
    try:
        text = repr(value)
    except RecursionError:
        return "nested too deeply"
    return text if len(text) <= 80 else f"{text[:77]}…"


def is_shallow(value: Json, *, depth: int = MOST_DEPTH) -> bool:
    """Whether a value has at most `depth` lists and objects inside each other."""
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(is_shallow(item, depth=depth - 1) for item in inner)


def _sentence(message: str, value: object, where: str) -> str:
    """Our words for an error of msgspec, which gives the place and the expected type, but not the value."""
    reason, _, path = message.partition(" - at `$")
    for name, place in _PLACE.findall(path.partition("[...]")[0]):
        where += f".{name}" if name else f"[{place}]"
        if isinstance(value, dict):
            value = value[name]
        elif isinstance(value, list | tuple):
            value = value[int(place)]
    if reason.startswith("Object missing required field"):
        return f"{where}.{reason.split('`')[1]} is missing"
    if reason.startswith("Invalid enum value"):
        return f"{where} is {shown(value)}, which is no valid name there"
    expected = "a finite number"
    if match := _EXPECTED.match(reason):
        expected = " or ".join(_WORDS.get(name, name) for name in match[1].split(" | "))
        expected += f", {_BOUNDS[match[2]]} {match[3]}" if match[2] else ""
    return f"{where} is {shown(value)}, expected {expected}"
