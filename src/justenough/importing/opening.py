"""Opens files as they are or decompressed (gzip, Zstandard), limits how far they may grow, and reads standard input."""

from __future__ import annotations

import errno
import gzip
import io
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

from justenough.errors import InputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STANDARD_INPUT: Final = "standard input"
"""Its name in messages."""
_GZIP: Final = b"\x1f\x8b"
_ZSTANDARD: Final = b"\x28\xb5\x2f\xfd"
_SMALL: Final = 16_000_000
"""Decompressed bytes that are always accepted."""
MOST_GROWTH: Final = 50
"""How many times larger a decompressed file may be. Parsed JSON takes up to twenty times more."""


def require_size(size: int, path: Path) -> None:
    """Raise `InputError` if a file has far more decompressed bytes than compressed ones."""
    if size > max(_SMALL, MOST_GROWTH * path.stat().st_size):
        raise InputError(
            f"{path} is far larger when it is decompressed", hint=f"more than {MOST_GROWTH} times is refused"
        )


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """A file that is open for reading, decompressed.

    Raises `InputError`, also in the block, if the file cannot be read or grows too far.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            if not magic.startswith(_GZIP) and magic != _ZSTANDARD:
                yield file
                return
        with io.BufferedReader(_Decompressed(path, zstandard=magic == _ZSTANDARD), 1 << 16) as unpacked:
            yield cast("io.BufferedReader", unpacked)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}", hint="is the file whole?") from error


class _Decompressed(io.RawIOBase):
    """The decompressed bytes of a file. It can go back to its beginning, but nowhere else."""

    def __init__(self, path: Path, *, zstandard: bool) -> None:
        self._path, self._zstandard = path, zstandard
        self._begin()

    def _begin(self) -> None:
        self._position = 0
        if self._zstandard:
            import pyarrow as pa

            self._file = cast("IO[bytes]", pa.input_stream(self._path, compression="zstd"))
        else:
            self._file = cast("IO[bytes]", gzip.GzipFile(self._path))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if (offset, whence) != (0, io.SEEK_SET):
            raise io.UnsupportedOperation("a compressed file is read from its beginning to its end")
        self._file.close()
        self._begin()
        return 0

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer)
        data = self._file.read(len(target))
        self._position += len(data)
        require_size(self._position, self._path)
        target[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


@contextmanager
def standard_input() -> Iterator[Path]:
    """A temporary file with all of standard input, because most formats are read twice.

    An `InputError` in the block names standard input instead of this file.
    """
    with tempfile.TemporaryDirectory(prefix="import-") as folder:
        path = Path(folder) / "stdin"
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        except OSError as error:
            hint = "the disk is full: free some space, or set TMPDIR" if error.errno == errno.ENOSPC else ""
            raise InputError(f"cannot keep standard input in {path}: {error.strerror}", hint=hint) from error
        try:
            yield path
        except InputError as error:
            error.args = (str(error.args[0]).replace(str(path), STANDARD_INPUT),)
            raise
