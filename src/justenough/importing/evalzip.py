"""Logs in Inspect's own format: a ZIP archive with one JSON file for the header and one for each sample.

Source: inspect_ai, `log/_recorders/eval.py`: `header.json`, before the end of a run `_journal/start.json`, in older
logs `start.json`; and `samples/ID_epoch_N.json`.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from justenough.errors import InputError
from justenough.importing.jsonfile import Item, parsed
from justenough.importing.opening import require_size
from justenough.trace import Json
from justenough.trace.files import BadLine

_HEADERS: Final = ("header.json", "_journal/start.json", "start.json")
_HINT: Final = "inspect log dump FILE > FILE.json"


def is_archive(path: Path) -> bool:
    """Whether a file begins as a ZIP archive."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def archived(path: Path) -> tuple[dict[str, Json], Iterator[Item | BadLine]]:
    """The header of a log and its samples, which are read one by one; raises `InputError` if it cannot be read."""
    with _archive(path) as archive:
        names = archive.namelist()
        # An archive states the sizes of its files, and `zipfile` returns no more bytes than that.
        require_size(sum(info.file_size for info in archive.infolist()), path)
        name = next((name for name in _HEADERS if name in names), None)
        header = None if name is None else _read(archive, name, number=1, path=path)
    if not isinstance(header, Item) or not isinstance(header.value, dict):
        raise InputError(f"{path} is a ZIP archive, but not a log of Inspect", hint=_HINT)
    return header.value, _samples(path)


def _samples(path: Path) -> Iterator[Item | BadLine]:
    with _archive(path) as archive:
        names = [name for name in archive.namelist() if name.startswith("samples/") and name.endswith(".json")]
        for number, name in enumerate(names, 1):
            yield _read(archive, name, number=number, path=path)


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"cannot read {path}: {error}", hint="is the file whole?") from error


def _read(archive: zipfile.ZipFile, name: str, *, number: int, path: Path) -> Item | BadLine:
    try:
        return parsed(archive.read(name), number)
    # Newer Pythons compress in more ways than older ones; a file may also be encrypted.
    except (NotImplementedError, RuntimeError) as error:
        raise InputError(f"cannot decompress {name} in {path}: {error}", hint=_HINT) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise InputError(f"cannot read {name} in {path}: {error}", hint="is the file whole?") from error
