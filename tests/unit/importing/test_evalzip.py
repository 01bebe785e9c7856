"""Logs in Inspect's own format."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from justenough.errors import InputError
from justenough.importing import import_file
from justenough.trace import Json
from tests.unit.importing.samples import inspect_log, model_event, one_step, sample


def archive(path: Path, *samples: Json, header: str = "header.json") -> Path:
    log = inspect_log()
    del log["samples"]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(header, json.dumps(log))
        for at, each in enumerate(samples, 1):
            file.writestr(f"samples/{at}_epoch_1.json", each if isinstance(each, str) else json.dumps(each))
    return path


@pytest.mark.parametrize("header", ["header.json", "_journal/start.json", "start.json"])
def test_an_archive_is_read_like_a_json_log(tmp_path: Path, header: str) -> None:
    path = archive(tmp_path / "log.eval", sample(1, model_event("4")), "{broken", sample(3), header=header)
    [trace], bad = import_file(path)
    # The sample's token has two alternatives with probability 1/2: 2 * 1/2 * 1 = 1 bit.
    assert one_step(trace) == ("4", 1, 1.0)
    assert (trace.id, trace.model, trace.task) == ("1", "openai/m-1", "popularity")
    assert [line.line for line in bad] == [2, 3]


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "log.eval", header="readme.json")
    with pytest.raises(InputError, match="not a log of Inspect"):
        import_file(path)
    (tmp_path / "cut.eval").write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="is the file whole"):
        import_file(tmp_path / "cut.eval")


def test_an_archive_that_grows_too_far_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "log.eval", " " * 17_000_000)
    with pytest.raises(InputError, match="far larger"):
        import_file(path)
