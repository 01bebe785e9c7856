"""Compressed files, and how far they may grow."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from justenough.errors import InputError
from justenough.importing.opening import opened
from tests.unit.importing.samples import zstandard

Pack = Callable[[bytes], bytes]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard])
def test_a_file_is_read_from_its_beginning_again(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "in"
    path.write_bytes(pack(b"one\ntwo\n"))
    with opened(path) as file:
        assert file.readline() == b"one\n"
        file.seek(0)
        assert file.read() == b"one\ntwo\n"


@pytest.mark.parametrize("pack", [gzip.compress, zstandard])
def test_parts_that_were_compressed_apart_are_one_file(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "in"
    path.write_bytes(pack(b"one\n") + pack(b"two\n"))
    with opened(path) as file:
        assert file.read() == b"one\ntwo\n"


@pytest.mark.parametrize("pack", [gzip.compress, zstandard])
def test_a_file_that_grows_too_far_is_refused(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "in"
    path.write_bytes(pack(bytes(17_000_000)))
    with pytest.raises(InputError, match="far larger when it is decompressed"), opened(path) as file:
        file.read()


@pytest.mark.parametrize("pack", [gzip.compress, zstandard])
def test_a_broken_file_is_refused(tmp_path: Path, pack: Pack) -> None:
    path = tmp_path / "in"
    path.write_bytes(pack(bytes(range(256)) * 400)[:-20])
    with pytest.raises(InputError, match="is the file whole"), opened(path) as file:
        file.read()


def test_a_compressed_file_goes_nowhere_but_to_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(gzip.compress(b"abc"))
    with pytest.raises(InputError, match="from its beginning"), opened(path) as file:
        file.seek(1, io.SEEK_END)
