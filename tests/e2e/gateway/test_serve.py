"""`justenough serve` as a process: starts, answers, drains at SIGTERM, and says in one line what is wrong."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest

from justenough.budget import Accounts
from justenough.cli import main
from justenough.testing import Fault, MockUpstream
from tests.unit.gateway.serving import calibration_of
from tests.unit.gateway.test_gating import CHAT

MODEL = "justenough-embedded"
COMMAND = (sys.executable, "-m", "justenough", "serve")


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    process = subprocess.Popen((*COMMAND, "--port", "0", *arguments), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"listening on (http://\S+)/v1, mode", line):
                yield found[1], process
                return
        raise AssertionError("it never listened")
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_serves_stops_and_drains(llama_server: str, tmp_path: Path) -> None:
    calibration = tmp_path / "calibration.json"
    calibration.write_text(calibration_of(1e6, model=MODEL, temperature=0.8).dumps())
    with serving("--upstream", f"{llama_server}/v1", "--calibration", str(calibration), "--close", "</think>") as (
        url,
        it,
    ):
        body = {"model": MODEL, "messages": [{"role": "user", "content": "47*36"}], "seed": 1}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body)
        assert answer.json()["justenough"]["decision"] in ("stopped", "audited")
        assert httpx.get(f"{url}/ready").status_code == 200
        it.send_signal(signal.SIGTERM)
        assert it.wait(10) == 0


def test_control_c_stops_it_without_an_error() -> None:
    with serving("--upstream", "http://127.0.0.1:1") as (url, it):
        assert httpx.get(f"{url}/health").status_code == 200
        it.send_signal(signal.SIGINT)
        assert it.stderr is not None
        lines = it.stderr.read().splitlines()
        assert it.wait() == 0
    assert lines[-1] == "stopped"
    assert lines[0].startswith("nothing is stopped without --calibration")


def test_a_second_control_c_ends_it_at_once_without_a_traceback() -> None:
    async def ask(url: str, it: subprocess.Popen[str]) -> None:
        async with httpx.AsyncClient(timeout=20) as client:
            asked = asyncio.create_task(client.post(f"{url}/v1/chat/completions", json=CHAT))
            await asyncio.sleep(0.5)
            assert not asked.done()
            for _ in range(2):
                it.send_signal(signal.SIGINT)
                await asyncio.sleep(0.3)
            await asyncio.gather(asked, return_exceptions=True)

    async def scenario() -> str:
        async with MockUpstream(fault=Fault.STALL_IN_STREAM) as mock:
            with serving("--upstream", mock.url) as (url, it):
                await ask(url, it)
                assert it.stderr is not None
                return await asyncio.to_thread(it.stderr.read)

    log = asyncio.run(scenario())
    assert "Traceback" not in log
    assert log.splitlines()[-1] == "stopped"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--upstream", "nowhere"), "no base address"),
        (("--upstream", "http://127.0.0.1:1", "--host", "0.0.0.0"), "--allow-remote"),
        (("--upstream", "http://127.0.0.1:1", "--calibration", "/no/such/file"), "cannot read"),
        (("--upstream", "http://127.0.0.1:1", "--mode", "gate"), "no threshold"),
        (("--upstream", "http://127.0.0.1:1", "--ledger", "x"), "--budget-tokens"),
        (("--upstream", "http://127.0.0.1:1", "--budget-tokens", "0"), "at least 16"),
        (("--upstream", "http://127.0.0.1:1", "--budget-tokens", "900", "--budget-scope", "key"), "--client-key-file"),
        (("--upstream", "http://127.0.0.1:1", "--cascade-model", "m"), "--cascade-upstream"),
        (("--upstream", "http://127.0.0.1:1", "--extend", "cascade"), "second model"),
        (("--upstream", "http://127.0.0.1:1", "--max-request-tokens", "0"), "above 0"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *arguments]) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert len(message.splitlines()) == 1


def test_the_process_adds_nothing_to_that_line() -> None:
    done = subprocess.run((*COMMAND, "--upstream", "nowhere"), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "no base address" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_was_spent_survives_a_gateway_that_dies(llama_server: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("sk-one\nsk-two\n")
    ledger = tmp_path / "budget.sqlite"
    given = ("--upstream", llama_server, "--client-key-file", str(keys), "--ledger", str(ledger))
    budget = ("--budget-tokens", "60", "--budget-per", "batch", "--budget-scope", "key")
    body = {"model": MODEL, "messages": [{"role": "user", "content": "47*36"}], "seed": 1, "max_tokens": 50}
    one, two = ({"authorization": f"Bearer sk-{key}"} for key in ("one", "two"))

    def spent(url: str) -> list[int]:
        accounts = httpx.get(f"{url}/v1/justenough/status").json()["budget"]["accounts"]
        return [row["spent"] for row in accounts.values()]

    with serving(*given, *budget) as (url, it):
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=one)
        assert answer.json()["usage"]["completion_tokens"] == 50
        assert spent(url) == [50]
        it.kill()
        it.wait(10)
    with serving(*given, *budget) as (url, _):
        assert spent(url) == [50]
        refused = httpx.post(f"{url}/v1/chat/completions", json=body, headers=one)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
        assert httpx.post(f"{url}/v1/chat/completions", json=body, headers=two).status_code == 200
        with pytest.raises(openai.RateLimitError):
            openai.OpenAI(base_url=f"{url}/v1", api_key="sk-one").chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "47*36"}]
            )
    assert b"sk-" not in ledger.read_bytes()


def test_what_a_request_under_way_has_used_survives_a_gateway_that_dies(tmp_path: Path) -> None:
    ledger = tmp_path / "budget.sqlite"
    budget = ("--budget-tokens", "1000", "--budget-per", "batch", "--ledger", str(ledger))

    seen = 0

    async def asked(url: str, gateway: subprocess.Popen[str]) -> None:
        nonlocal seen
        body = {**CHAT, "stream": True, "max_tokens": 400}
        async with (
            httpx.AsyncClient(timeout=30) as client,
            client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer,
        ):
            async for line in answer.aiter_lines():
                seen += line.startswith("data: ")
                if seen == 60:
                    gateway.kill()

    async def scenario() -> None:
        async with MockUpstream(thought=tuple(f"thought{at} " for at in range(500)), interval_s=0.01) as mock:
            started = serving("--upstream", f"{mock.url}/v1", *budget)
            # Not in this loop: it probes the upstream, which is in this loop, before it listens.
            url, gateway = await asyncio.to_thread(started.__enter__)
            try:
                with pytest.raises(httpx.TransportError):
                    await asked(url, gateway)
            finally:
                await asyncio.to_thread(started.__exit__, None, None, None)

    asyncio.run(scenario())
    with Accounts(1000, per="batch", path=ledger) as accounts:
        (row,) = accounts.standing().values()
    # Noted ten times a second: at a hundred tokens a second, and half of that for a busy machine, few are missing.
    assert seen - 40 <= row.spent <= seen + 60
    assert row.spent + row.lapsed == 400
    assert row.reserved == 0
