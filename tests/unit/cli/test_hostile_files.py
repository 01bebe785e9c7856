"""Every file that a command reads may be broken in every way: one line and an exit code, never a traceback."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from justenough.trace.files import write_traces
from tests.builders import population
from tests.unit.cli.invoke import run

DEEP = b"[" * 100_000 + b"]" * 100_000
DIGITS = b"9" * 4000
TRACE = b'{"id": "a", "model": "m", "steps": [{"tokens": 3, "answer": "1", "entropy": 0.5}], "x": %b}'
CONTENTS = {
    "deep lists": DEEP,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "500 objects": b'{"a":' * 500 + b"1" + b"}" * 500,
    "infinity": b"1e999",
    "5000 digits": b"9" * 5000,
    "NaN": b"NaN",
    "byte order mark": b"\xef\xbb\xbf{}",
    "binary": bytes(range(256)) * 20,
    "empty": b"",
    "half a surrogate pair": b'"\\ud800"',
    "broken Parquet": b"PAR1" + b"x" * 100,
    "broken gzip": b"\x1f\x8b" + b"x" * 100,
    "gzipped deep lists": gzip.compress(DEEP),
    "gzip bomb": gzip.compress(b"[" + b"[]," * 6_000_000 + b"1]"),
    "zip": b"PK\x03\x04",
    "database": b"SQLite format 3\0" + b"x" * 100,
    "list": b"[1, 2]",
    "object": b'{"a": 1}',
    "null": b"null",
    "trace with deep lists": TRACE % DEEP,
    "trace with infinity": TRACE.replace(b"0.5", b"1e999") % b"1",
    "trace with 4000 digits": TRACE.replace(b'"tokens": 3', b'"tokens": ' + DIGITS) % b"1",
    "trace with NaN": TRACE.replace(b"0.5", b"NaN") % b"NaN",
    "prices with 4000 digits": b'{"model": {"input": 1, "output": %b}}' % DIGITS,
    "log with 4000 digits": b'{"eval": {"model_generate_config": {"temperature": %b}}, "samples": []}' % DIGITS,
}
COMMANDS: dict[str, Sequence[object]] = {
    "evaluate": ("{bad}", "--draws", 2, "--rules", "oracle"),
    "evaluate calibration": ("{good}", "--draws", 2, "--calibration", "{bad}"),
    "evaluate prices": ("{good}", "--draws", 2, "--prices", "{bad}"),
    "report": ("{bad}", "--out", "{out}.html"),
    "diagnose": ("{bad}",),
    "calibrate": ("{bad}", "--out", "{out}", "--labels", "graded"),
    "budget": ("{bad}", "--total", 200),
    "budget fit": ("{good}", "--total", 200, "--fit", "{bad}"),
    "solve calibration": ("47*36", "--calibration", "{bad}"),
    "solve replay": ("47*36", "--model", "replay:{bad}"),
    "solve certificate": ("47*36", "--model", "calm:{bad}"),
    "collect": ("--model", "embedded", "--tasks", "{bad}", "--out", "{out}"),
    "collect fit": (
        "--model",
        "embedded",
        "--tasks",
        "sum",
        "--limit",
        2,
        "--budget",
        900,
        "--fit",
        "{bad}",
        "--out",
        "{out}",
    ),
    "serve calibration": ("--upstream", "http://127.0.0.1:9", "--calibration", "{bad}", "--port", 0),
    "import openai tasks": ("{good}", "--format", "openai", "--tasks", "{bad}", "--out", "{out}"),
    **{
        f"import {format}": ("{bad}", "--format", format, "--out", "{out}")
        for format in ("justenough", "openai", "inspect", "records")
    },
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.parquet"
    write_traces(population(60, seed=2), path)
    return path


def refused(command: str, bad: Path, good: Path) -> None:
    """Run a command on a bad file: it ends with one line, and writes nothing."""
    out = bad.with_name("out")
    arguments = [str(each).format(bad=bad, good=good, out=out) for each in COMMANDS[command]]
    shown = run(command.split()[0], *arguments)
    assert shown.code == 2, shown.err
    # `import` reports bad lines before the error.
    *lines, error = shown.err.rstrip("\n").split("\n")
    assert error.startswith(f"justenough {command.split()[0]}: ")
    assert all(line.startswith((f"{bad}:", "… and")) for line in lines)
    assert lines == [] or command.startswith("import")
    assert max(map(len, shown.err.split("\n"))) <= 2100
    assert shown.err.replace("\n", "").isprintable()
    assert not out.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_broken_file_is_one_line(command: str, good: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    for name, content in CONTENTS.items():
        # These are valid in the one format that keeps unknown keys.
        if name == "trace with NaN" and command == "import justenough":
            continue
        bad.write_bytes(content)
        refused(command, bad, good)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_file_is_one_line(command: str, good: Path, tmp_path: Path) -> None:
    folder, pipe, absent, locked = (tmp_path / name for name in ("folder", "pipe", "absent", "locked"))
    folder.mkdir()
    os.mkfifo(pipe)
    locked.write_text("{}")
    locked.chmod(0)
    for bad in (folder, pipe, absent, locked):
        # Root may read every file; the content is refused then.
        refused(command, bad, good)


EVIL = "m\x1b]0;owned\x07\x9b2J\u202e\r\u2066" + "n" * 20_000


def test_no_file_can_control_or_flood_the_terminal(tmp_path: Path) -> None:
    path, calibration = tmp_path / "evil.jsonl", tmp_path / "c.json"
    evil = [
        replace(one, model=EVIL, family=EVIL, group=EVIL, task=EVIL, id=f"{number}{EVIL}")
        for number, one in enumerate(population(30, seed=2))
    ]
    write_traces(evil, path)
    replies = tmp_path / "replies.jsonl"
    replies.write_text(json.dumps({"id": EVIL, "object": "response", "error": {"message": EVIL}}) + "\n")
    records = tmp_path / "records.csv"
    records.write_text(f"model,question_id,token_length,correct\n{EVIL[:9]},q,x{EVIL[:9]},true\n", newline="")
    for arguments in (
        ("calibrate", path, "-n", 10, "--force", "--out", calibration),
        ("evaluate", path, "--draws", 3),
        ("evaluate", path, "--calibration", calibration),
        ("report", path, "--out", tmp_path / "r.txt"),
        ("report", path, "--out", tmp_path / "r.md"),
        ("diagnose", path),
        ("budget", path, "--total", 200),
        ("budget", path, "--total", 200, "--fit", path),
        ("import", path, "--format", "justenough", "--out", tmp_path / "o.jsonl"),
        ("import", replies, "--format", "openai", "--out", tmp_path / "o.jsonl"),
        ("import", records, "--format", "records", "--out", tmp_path / "o.jsonl"),
        ("import", records, "--format", "records", "--model", "x", "--out", tmp_path / "o.jsonl"),
        ("solve", EVIL),
    ):
        shown = run(*arguments)
        assert shown.code in (0, 1, 2)
        assert (shown.out + shown.err).replace("\n", "").replace("\t", "").isprintable(), arguments[0]
        assert len(shown.out + shown.err) < 100_000, arguments[0]
    for report in (tmp_path / "r.txt", tmp_path / "r.md"):
        assert report.read_text().replace("\n", "").replace("\t", "").isprintable()


SUM = ("collect", "--model", "embedded", "--tasks", "sum", "--limit", "2", "--out")
LIMITED = """
import resource, sys
from justenough.cli import main

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("limit", "code", "arguments"),
    [
        (100, 2, ("import", "{good}", "--format", "justenough", "--out", "{out}.jsonl")),
        (100, 2, ("import", "{good}", "--format", "justenough", "--out", "{out}.parquet")),
        (100, 2, ("calibrate", "{good}", "-n", "20", "--force", "--out", "{out}.json")),
        (100, 2, ("report", "{good}", "--out", "{out}.html")),
        (3, 2, (*SUM, "{out}.jsonl")),
        (3000, 3, (*SUM, "{out}.jsonl")),
        (100, 2, (*SUM, "{out}.jsonl", "--budget", "900", "--policy", "uniform")),
    ],
)
def test_a_full_disk_is_one_line(limit: int, code: int, arguments: Sequence[str], good: Path, tmp_path: Path) -> None:
    given = [argument.format(good=good, out=tmp_path / "out") for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *given], capture_output=True, text=True, timeout=60, check=False
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("collect: ")]
    assert (done.returncode, len(lines)) == (code, 1), done.stderr
    assert lines[0].startswith(f"justenough {arguments[0]}: ")
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".partial")] == []
    assert not list(tmp_path.glob("out.json")) + list(tmp_path.glob("out.html"))
