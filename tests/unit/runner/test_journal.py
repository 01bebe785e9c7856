"""The journal: a full disk gives one line, and only one process holds the lock."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from justenough.errors import InputError, Interrupted
from justenough.runner.journal import Journal, begun, journal_of
from justenough.trace.files import write_traces
from tests.builders import step, trace

HOLDER = """
import sys
from pathlib import Path
from justenough.runner.journal import Journal

with Journal(Path(sys.argv[1]), digest="d"):
    print("locked", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """A limit on the size of files, which acts like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_is_one_error_and_the_earlier_lines_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, digest="d") as journal:
        journal.append(trace(id="a"))
        long = trace(replace(step(), text="long" * 10_000), id="b")
        with (
            file_limit(path.stat().st_size + 10),
            pytest.raises(Interrupted, match=r"cannot write .*; the file keeps 1 problem .*ulimit -f"),
        ):
            journal.append(long)
    with Journal(path, digest="d") as journal:
        assert list(journal.traces) == ["a"]


def test_a_disk_that_is_full_from_the_start_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"), file_limit(0), Journal(tmp_path / "journal", digest="d"):
        pass


def test_a_journal_that_is_deleted_while_another_process_waits_is_not_locked_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    opened = Path.open
    second: list[subprocess.Popen[str]] = []

    def slow(self: Path, mode: str) -> object:
        """Between our opening and locking, the first holder deletes the file, and a second one creates it again."""
        file = opened(self, mode)
        if not second:
            path.unlink()
            second.append(
                subprocess.Popen(
                    [sys.executable, "-c", HOLDER, str(path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            assert second[0].stdout is not None
            assert second[0].stdout.readline() == "locked\n"
        return file

    monkeypatch.setattr(Path, "open", slow)
    with pytest.raises(InputError, match="another process"), Journal(path, digest="d"):
        pass
    second[0].communicate("\n", timeout=30)
    assert second[0].returncode == 0


def test_the_file_is_deleted_while_the_lock_is_held(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, digest="d") as journal:
        journal.append(trace(id="a"))
        journal.delete()
        # A second process may begin now. The end of this one must leave its file alone.
        with Journal(path, digest="d") as other:
            other.append(trace(id="b"))
            journal.traces.places.clear()
            journal.__exit__(None, None, None)
            assert path.exists()


def test_a_journal_that_is_replaced_is_not_written_and_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, digest="d") as journal:
        path.rename(tmp_path / "old")
        with Journal(path, digest="d") as other:
            other.append(trace(id="b"))
        with pytest.raises(Interrupted, match="replaced"):
            journal.append(trace(id="a"))
    with Journal(path, digest="d") as journal:
        assert list(journal.traces) == ["b"]


def test_links_to_one_output_share_its_journal(tmp_path: Path) -> None:
    out, link = tmp_path / "real" / "out.parquet", tmp_path / "link.parquet"
    out.parent.mkdir()
    link.symlink_to(out)
    (tmp_path / "folder").symlink_to(out.parent)
    assert journal_of(link) == journal_of(out) == journal_of(tmp_path / "folder" / "out.parquet")
    hard = tmp_path / "hard"
    with Journal(journal_of(out), digest="d") as journal:
        journal.append(trace(id="a"))
        hard.hardlink_to(journal_of(out))
        with pytest.raises(InputError, match="another process"), Journal(hard, digest="d"):
            pass


def test_links_that_lead_to_each_other_are_one_error(tmp_path: Path) -> None:
    loop = tmp_path / "loop.jsonl"
    loop.symlink_to(loop)
    with pytest.raises(InputError, match="cannot write"):
        journal_of(loop)


def test_a_trace_that_an_earlier_call_has_kept(tmp_path: Path) -> None:
    out, kept = tmp_path / "t.jsonl", trace(id="a")
    assert begun(out) is None
    with Journal(journal_of(out), digest="d") as journal:
        assert begun(out) is None
        journal.append(kept)
    earlier = begun(out)
    assert earlier is not None
    assert earlier.id == "a"
    write_traces([trace(id="b")], out)
    earlier = begun(out)
    assert earlier is not None
    assert earlier.id == "b"
