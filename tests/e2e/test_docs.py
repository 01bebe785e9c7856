"""The commands of README, tutorial and how-tos, run as printed on the embedded model and llama.cpp's own server.

A block that begins with "```sh run" is run, line by line. Only the server's address is replaced, and a gateway takes a
free port. A line may exit with 1 if its comment says what that means. Savings that the text names must be printed.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import GGUF
from tests.reports import few_draws
from tests.unit.cli.invoke import Result, run

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"^( *)```sh run\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SERVER = "http://127.0.0.1:8000"
PROBLEMS = 24
ENOUGH = 120
"""Problems of which half can certify a gate."""
SHORT = 5
"""Characters of a sum of two numbers: the model's thoughts about them are the shortest."""


def commands(page: str) -> list[str]:
    """The lines of the blocks that are run; a line that ends with a backslash goes on in the next one."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = (match[2].replace("\\\n", " ") for match in BLOCK.finditer(text))
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """llama.cpp without its counters: the toy model ends a thought before the server notices that a client has left."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(GGUF)
    params.model_alias = {"justenough-embedded"}
    params.n_ctx, params.n_parallel = 640 * 8, 8
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.warmup = False
    running = xllamacpp.Server(params)
    yield str(running.listening_address)
    del running


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Reports with few draws; `evaluate`, whose figures the pages name, makes all of its own."""
    with few_draws():
        yield


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's folder, with the task file that the pages name."""
    monkeypatch.chdir(tmp_path)
    write_tasks(tmp_path, PROBLEMS)
    return tmp_path


def write_tasks(folder: Path, problems: int, *, longest: int | None = None) -> None:
    """The task file that the pages name; `longest`: the most characters of a problem."""
    from justenough.grading import read_tasks

    chosen = [one for one in read_tasks("sum") if longest is None or len(one.problem) <= longest][:problems]
    assert len(chosen) == problems
    rows = [{"id": one.id, "problem": one.problem, "target": one.target} for one in chosen]
    (folder / "my-task.jsonl").write_text("\n".join(map(json.dumps, rows)))


def results(page: str, server: str) -> dict[str, Result]:
    """Run the commands of a page; command without arguments → its last result."""
    done: dict[str, Result] = {}
    for line in commands(page):
        program, *arguments = shlex.split(line.replace(SERVER, server), comments=True)
        assert program == "justenough", f"{page}: {line}"
        if arguments[0] == "serve":
            with serving(arguments) as address:
                assert stops(address) > 0
            continue
        result = done[arguments[0]] = run(*arguments)
        allowed = (0, 1) if "exit code 1:" in line else (0,)
        assert result.code in allowed, f"{page}: {line}\n{result.out}\n{result.err}"
    return done


@contextmanager
def serving(arguments: list[str]) -> Iterator[str]:
    """The gateway as a process; its address."""
    command = [sys.executable, "-m", "justenough", *arguments, "--port", "0", "--audit-share", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            log = ""
            for line in process.stderr:
                log += line
                if address := re.search(r"listening on (http://\S+)/v1", line):
                    assert "warning" not in log
                    yield address[1]
                    return
            pytest.fail(log)
        finally:
            process.kill()


def stops(address: str) -> int:
    """How many of some requests without any setting the gateway stops."""

    async def main() -> int:
        async with httpx.AsyncClient(base_url=address, timeout=600, trust_env=False) as client:
            asked = [
                {"model": "justenough-embedded", "messages": [{"role": "user", "content": f"{number}+11-5"}]}
                for number in range(20, 26)
            ]
            answers = [await client.post("/v1/chat/completions", json=body) for body in asked]
        return sum(answer.headers["x-justenough"].startswith("stopped") for answer in answers)

    return asyncio.run(main())


def percentages(pattern: str, text: str) -> list[float]:
    """The numbers of the first match."""
    match = re.search(pattern, text)
    assert match is not None, f"{pattern} is not in:\n{text}"
    return [float(number) for number in match.groups()]


def test_the_readme(folder: Path, server: str) -> None:
    done = results("README.md", server)
    assert {"solve", "collect", "diagnose", "calibrate", "evaluate", "budget"} <= done.keys()
    assert "shape: streaming" in done["collect"].err


def test_the_tutorial_saves_what_it_says(folder: Path) -> None:
    page, done = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8"), results("docs/tutorial.md", SERVER)
    (named,) = percentages(r"stopping saved\s+(\d+) % of the tokens", page)
    assert percentages(r"stopping saved (\d+\.\d) %", done["solve"].out) == [pytest.approx(named, abs=2)]
    low, high = percentages(r"saves between (\d+) and (\d+) % of the tokens", page)
    (saved,) = percentages(r"entropy-mean +\S+ %.*?\] +(\d+\.\d) %", done["evaluate"].out)
    assert low <= saved <= high
    assert (folder / "report.html").stat().st_size > 0


def test_the_gateway_saves_what_its_page_says(folder: Path, server: str) -> None:
    write_tasks(folder, ENOUGH, longest=SHORT)
    page = (ROOT / "docs/how-to/gateway.md").read_text(encoding="utf-8")
    done = results("docs/how-to/gateway.md", server)
    out = done["setup"].out
    low, high = percentages(r"saving is between (\d+) and (\d+) % of the tokens", page)
    (saved,) = percentages(r"expected saving (\d+\.\d) %", out)
    assert low <= saved <= high
    assert "at most 5.00% of all problems are stopped wrong" in out
    assert out.splitlines()[-1].startswith(f"start the gateway: justenough serve --upstream {server} ")
    (live,) = percentages(r"(\d+\.\d) % saved", out)
    assert live > 0
    direct, gated = percentages(r"right (\d+) directly, (\d+) through the gateway", out)
    assert gated >= direct - 3


def test_ones_own_model_step_by_step(folder: Path, server: str) -> None:
    # The calibration takes 20 of them, and the saving is measured on the others.
    write_tasks(folder, 2 * 20)
    done = results("docs/how-to/your-own-model.md", server)
    assert "shape: streaming" in done["collect"].err
    (saved,) = percentages(r"entropy-mean +\S+ %.*?\] +(\d+\.\d) %", done["evaluate"].out)
    assert saved > 0
