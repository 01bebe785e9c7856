"""Other people's clients, each in a process of its own that asks all three servers the same.

They need an environment of their own, `.venv-clients`, which `make test-clients` makes from `requirements.txt`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from justenough.importing.formats import import_file
from justenough.wire.events import DONE, EventReader
from tests.answers import CHANGING, steady
from tests.clients.ask import MESSAGES, MODEL, SETTINGS
from tests.clients.conftest import Servers

pytestmark = pytest.mark.clients

ROOT: Final = Path(__file__).parents[2]
PROGRAMS: Final = ROOT / ".venv-clients" / "bin"

CLIENTS: Final[Mapping[str, Mapping[str, type]]] = {
    "litellm": CHANGING,
    "llm": CHANGING,
    # An id of its own, and how long it waited.
    "inspect": {**CHANGING, "response_id": str, "time": float},
}
"""What of a client's results differs from one to the next."""


class Told(NamedTuple):
    """What a client got: from a server's URL to its results, call by call."""

    client: str
    results: dict[str, dict[str, Any]]
    folder: Path
    """Where the client wrote its files."""


class Answer(NamedTuple):
    """What a client makes of an answer."""

    thought: str
    text: str
    finish: str
    tokens: int
    reasoning_tokens: int | None


def ran(command: list[str], folder: Path) -> str:
    """What a program says; it sees no keys and settings of its surroundings."""
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "LLM_USER_PATH": str(folder),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=CLIENTS)
def told(request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp(request.param)
    file = folder / "told.json"
    ran([str(PROGRAMS / "python"), "-m", f"tests.clients.ask_{request.param}", str(file), *servers], folder)
    return Told(request.param, json.loads(file.read_text()), folder)


def test_a_client_sees_no_difference_in_off_mode(told: Told, servers: Servers) -> None:
    changing = CLIENTS[told.client]
    assert steady(told.results[servers.off], changing) == steady(told.results[servers.direct], changing)


@pytest.mark.parametrize("call", ["whole", "streamed"])
def test_a_client_reads_a_stopped_thought(told: Told, servers: Servers, call: str) -> None:
    gated, direct = (answer(told.client, told.results[url][call]) for url in (servers.gate, servers.direct))
    assert gated.thought
    assert direct.thought.startswith(gated.thought)
    assert re.fullmatch(r"Answer: \d+", gated.text)
    assert gated.finish == "stop"
    assert 0 < (gated.reasoning_tokens or 0) < gated.tokens < direct.tokens


@pytest.mark.parametrize("told", ["inspect"], indirect=True)
def test_the_log_of_inspect_is_imported_with_the_gateways_reports(told: Told) -> None:
    (log,) = told.folder.glob("logs-4/*.json")
    traces = import_file(log).traces
    assert [(trace.seed, len(trace.steps)) for trace in traces] == [(1, 1), (2, 1)]
    for trace in traces:
        assert trace.steps[0].bits(trace.signal) is not None
        report = trace.steps[0].extra["justenough"]
        assert isinstance(report, dict)
        assert report["decision"] == "stopped"


@pytest.mark.parametrize("told", ["inspect"], indirect=True)
def test_the_solver_of_inspect_gives_the_gateway_its_settings_and_keeps_the_reports(
    told: Told, servers: Servers
) -> None:
    samples = told.results[servers.gate]["solver"]
    assert len(samples) == 4 * 2
    reports = [store.get("justenough") for store, _ in samples]
    gated, within, observed, off = (reports[at : at + 2] for at in range(0, 8, 2))
    assert [[report["decision"] for report in each] for each in gated] == [["stopped"]] * 2
    assert [[report["decision"] for report in each] for each in observed] == [["observed"]] * 2
    assert all(usage["output_tokens"] <= 20 for _, usage in samples[2:4])
    assert [len(each) for each in within] == [1, 1]
    assert off == [[], []]


def answer(client: str, result: Any) -> Answer:
    """What it says of an answer, whole or streamed, in its own words."""
    if client == "litellm":
        chunks = result if isinstance(result, list) else [result]
        choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
        messages = [choice.get("message") or choice["delta"] for choice in choices]
        usage = chunks[-1]["usage"]
        said = ["".join([message.get(key) or "" for message in messages]) for key in ("reasoning_content", "content")]
        # It takes a thought out of a whole answer, and leaves it in a stream.
        thought, text = parted(said[1]) if isinstance(result, list) else said
        finish = choices[-1]["finish_reason"]
        return Answer(thought, text, finish, usage["completion_tokens"], details(usage))
    if client == "llm":
        thought, text = parted("".join(result["pieces"]))
        whole = result["json"]
        finish = (whole.get("choices") or [whole])[0]["finish_reason"]
        return Answer(thought, text, finish, result["usage"]["output"], details(whole["usage"]))
    (choice,) = result["choices"]
    reasoning, said = choice["message"]["content"]
    usage = result["usage"]
    tokens = usage["output_tokens"], usage["reasoning_tokens"]
    return Answer(reasoning["reasoning"], said["text"], choice["stop_reason"], *tokens)


def parted(text: str) -> tuple[str, str]:
    """Thought and answer."""
    thought, _, said = text.removeprefix("<think>").partition("</think>")
    return thought, said


def details(usage: dict[str, Any]) -> int | None:
    found = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    return None if found is None else int(found)


BODY: Final[dict[str, Any]] = {"model": MODEL, "messages": MESSAGES, **SETTINGS}
CURL: Final[Mapping[str, tuple[dict[str, Any], list[str]]]] = {
    "whole": (BODY, []),
    "old protocol": (BODY, ["--http1.0"]),
    "asks before it sends": (BODY, ["--header", "Expect: 100-continue"]),
    "compressed": (BODY, ["--compressed"]),
    "streamed": (BODY | {"stream": True, "stream_options": {"include_usage": True}}, ["--no-buffer"]),
    "streamed, old protocol": (BODY | {"stream": True}, ["--no-buffer", "--http1.0"]),
    "error": (BODY | {"top_logprobs": 3}, []),
}


def curled(url: str, call: str, folder: Path) -> tuple[int, list[Any]]:
    """The status, and the events or the one JSON value that came."""
    body, options = CURL[call]
    command = [
        "curl",
        "--silent",
        "--show-error",
        *options,
        "--write-out",
        "\n%{http_code}",
        "--json",
        json.dumps(body),
    ]
    text, _, status = ran([*command, f"{url}/v1/chat/completions"], folder).rpartition("\n")
    if not body.get("stream"):
        return int(status), [json.loads(text)]
    *events, last = EventReader().feed(text.encode())
    assert last == DONE
    return int(status), [json.loads(event) for event in events]


@pytest.mark.parametrize("call", CURL)
def test_curl_sees_no_difference_in_off_mode(servers: Servers, tmp_path: Path, call: str) -> None:
    direct, off = (curled(url, call, tmp_path) for url in (servers.direct, servers.off))
    assert steady([*off]) == steady([*direct])
    assert off[0] == (400 if call == "error" else 200)


@pytest.mark.parametrize("call", ["whole", "streamed"])
def test_curl_reads_a_stopped_thought(servers: Servers, tmp_path: Path, call: str) -> None:
    status, chunks = curled(servers.gate, call, tmp_path)
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    text = "".join([(choice.get("message") or choice["delta"]).get("content") or "" for choice in choices])
    assert re.fullmatch(r"<think>\S+\n\n</think>Answer: \d+", text)
    usage = chunks[-1]["usage"]
    assert (status, choices[-1]["finish_reason"]) == (200, "stop")
    assert 0 < (details(usage) or 0) < usage["completion_tokens"]
