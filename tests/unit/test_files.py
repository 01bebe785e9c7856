"""A file appears whole or not at all, whatever the target is; what cannot be written gives one clear error."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from justenough.errors import InputError
from justenough.files import lines_of, load_json, read_as, write_error, write_text, written_whole


def test_an_error_in_the_block_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "before")

    def fail() -> None:
        with written_whole(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("the power went")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_created_and_the_mode_follows_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.txt"
    before = os.umask(0o027)
    try:
        write_text(path, "é")
    finally:
        os.umask(before)
    assert path.read_text(encoding="utf-8") == "é"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_an_existing_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    path.chmod(0o600)
    write_text(path, "after")
    assert path.read_text() == "after"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "real" / "a.txt", tmp_path / "link.txt"
    target.parent.mkdir()
    target.write_text("before")
    link.symlink_to(target)
    write_text(link, "after")
    assert link.is_symlink()
    assert target.read_text() == "after"
    assert list(target.parent.iterdir()) == [target]


def test_a_dangling_link_creates_its_target(tmp_path: Path) -> None:
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "new.txt")
    write_text(link, "after")
    assert link.is_symlink()
    assert (tmp_path / "new.txt").read_text() == "after"


def test_a_pipe_and_a_device_are_written_through(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "through")
    reader.join(10)
    assert read == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    write_text(Path("/dev/null"), "gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_leftovers_of_a_killed_process_are_deleted_and_those_of_a_living_one_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    leftover, other = tmp_path / ".a.txt.x1.partial", tmp_path / ".b.txt.x2.partial"
    leftover.write_text("half")
    other.write_text("of another target")
    with written_whole(path) as under_way:
        assert not leftover.exists()
        write_text(path, "meanwhile")
        assert under_way.exists()
        under_way.write_text("last")
    assert path.read_text() == "last"
    assert sorted(tmp_path.iterdir()) == [other, path]


def test_a_full_disk_gives_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write /dev/full: No space left.*the disk is full"):
        write_text(Path("/dev/full"), "x")
    with pytest.raises(InputError, match=r"cannot write .*that is a folder"):
        write_text(tmp_path, "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_text(tmp_path / "file" / "a.txt", "x")


@pytest.mark.parametrize(
    ("code", "hint"), [(errno.EROFS, "read-only"), (errno.EACCES, "no permission"), (errno.EIO, "another --out")]
)
def test_the_hint_fits_the_cause(code: int, hint: str) -> None:
    assert hint in write_error(Path("a"), OSError(code, os.strerror(code))).hint


def test_a_long_name_and_a_pipe_with_the_name_of_a_leftover_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 120)
    os.mkfifo(tmp_path / f".{path.name[:50]}.x.partial")
    write_text(path, "x")
    assert path.read_text() == "x"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"{", "is not JSON"), (b"[" * 100_000, "is not JSON"), (b"[" * 200 + b"]" * 200, "nested too deeply")],
)
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        load_json(path, hint="write it again")


def test_json_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert load_json(path, hint="") == [1]


def test_a_file_or_a_line_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(20_000_000_000)
    with pytest.raises(InputError, match="has 20000000000 bytes, at most"):
        load_json(path, hint="")
    lines = tmp_path / "lines.jsonl"
    lines.write_bytes(b"1\n" + b"x" * 20)
    with lines.open("rb") as file, pytest.raises(InputError, match=r"lines.jsonl:2: the line has more than 10 bytes"):
        list(lines_of(file, lines, most=10))


def test_half_a_surrogate_pair_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="x has half of a character"):
        read_as("\ud800", dict[str, int], where="x")
