"""The live comparison before a server that counts: what is sent, what is kept, and what it comes to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.real.live import Client, Record, Row, compare, run_live
from benchmarks.real.plan import plan_of
from benchmarks.real.servers import RunError
from justenough.grading import Problem, open_grader

PLAN = plan_of("qwen2.5-coder-0.5b")
PROBLEM = Problem(id="1", problem="How many?", target="4")


class Counting(ThreadingHTTPServer):
    """Answers each request with `tokens` tokens, and counts them as llama.cpp does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, object]] = []
        self.tokens = 10
        self.answer = "Two and two.\nAnswer: 4"
        self.report: dict[str, object] | None = None
        self.status = 200
        self.counted = 7

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Counting

    def do_GET(self) -> None:
        if self.path == "/slots":
            self.reply(json.dumps([{"is_processing": False}]))
        else:
            lines = [("tokens_predicted_total", self.server.counted), ("prompt_tokens_total", 3 * self.server.counted)]
            self.reply("# HELP nothing\n" + "".join(f"llamacpp:{name} {value}\n" for name, value in lines))

    def do_POST(self) -> None:
        self.server.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.counted += self.server.tokens
        value: dict[str, object] = {
            "choices": [{"message": {"content": self.server.answer}}],
            "usage": {"completion_tokens": self.server.tokens},
        }
        if self.server.report is not None:
            value["justenough"] = self.server.report
        self.reply(json.dumps(value), status=self.server.status)

    def reply(self, text: str, *, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Counting]:
    with Counting() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(server: Counting) -> Iterator[Client]:
    client = Client(server.url, PLAN, shape="sequential", model="qwen")
    yield client
    client.close()


def test_alone_all_steps_are_asked_for_and_counted(server: Counting, client: Client) -> None:
    row = client.answer("alone", server.url, PROBLEM, open_grader("number"))
    assert (row.tokens, row.prompt_tokens, row.steps, row.correct) == (40, 120, 4, True)
    assert [len(request["messages"]) for request in server.requests] == [1, 3, 5, 7]  # type: ignore[arg-type]
    # `max_tokens` counts for all steps, as in the gateway.
    limit = 4 * PLAN.max_tokens
    assert [request["max_tokens"] for request in server.requests] == [limit, limit - 10, limit - 20, limit - 30]


def test_alone_no_step_begins_without_tokens_left(server: Counting, client: Client) -> None:
    server.tokens = 400
    row = client.answer("alone", server.url, PROBLEM, open_grader("number"))
    assert (row.steps, row.tokens) == (2, 800)


def test_streaming_alone_is_one_completion(server: Counting) -> None:
    client = Client(server.url, PLAN, shape="streaming", model="qwen")
    row = client.answer("alone", server.url, PROBLEM, open_grader("number"))
    client.close()
    assert (row.steps, row.tokens) == (1, 10)
    assert server.requests[0]["max_tokens"] == PLAN.max_tokens


@pytest.mark.parametrize(
    ("report", "decision"),
    [
        ({"decision": "stopped", "reason": "confident", "steps": 2}, "stopped"),
        ({"decision": "observed", "reason": "temperature"}, "observed: temperature"),
        (None, "relayed: no report"),
    ],
)
def test_the_gateways_decision_is_kept(
    server: Counting, client: Client, report: dict[str, object] | None, decision: str
) -> None:
    server.report = report
    row = client.answer("gateway", server.url, PROBLEM, open_grader("number"))
    assert (row.decision, row.tokens, len(server.requests)) == (decision, 10, 1)


def test_a_refusal_is_quoted(server: Counting, client: Client) -> None:
    server.status = 503
    with pytest.raises(RunError, match="answered 503"):
        client.answer("alone", server.url, PROBLEM, open_grader("number"))


def row(way: str, identity: str, *, tokens: int, correct: bool = True, decision: str = "") -> Row:
    assert way in ("alone", "gateway")
    return Row(
        way="alone" if way == "alone" else "gateway",
        id=identity,
        correct=correct,
        tokens=tokens,
        prompt_tokens=5,
        seconds=tokens / 10,
        decision=decision,
    )


def test_half_a_line_and_another_calibration_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    record = Record(path, digest="one")
    record.append(row("alone", "a", tokens=4))
    record.append(row("gateway", "a", tokens=2))
    with path.open("ab") as file:
        file.write(b'{"way": "alone", "id": "b", "corr')
    assert sorted(Record(path, digest="one").rows) == [("alone", "a"), ("gateway", "a")]
    Record(path, digest="one").append(row("alone", "b", tokens=4))
    assert len(Record(path, digest="one").rows) == 3
    assert Record(path, digest="two").rows == {}
    path.write_text('{"live": "two"}\n{"way": "alone"}\n')
    with pytest.raises(RunError, match=r"live\.jsonl:2 is no answer"):
        Record(path, digest="two")


def test_only_what_is_missing_is_asked_and_the_ways_take_turns(
    server: Counting, client: Client, tmp_path: Path
) -> None:
    server.report = {"decision": "finished", "reason": "unsure", "steps": 4}
    record = Record(tmp_path / "live.jsonl", digest="one")
    record.append(row("alone", "1", tokens=40))
    problems = [PROBLEM, replace(PROBLEM, id="2")]
    lines: list[str] = []
    urls = {"alone": server.url, "gateway": server.url}
    live = run_live(client, record, problems, urls, grader=open_grader("number"), progress=lines.append)  # type: ignore[arg-type]
    assert [(way, identity) for way, identity in record.rows][1:] == [
        ("gateway", "1"),
        ("gateway", "2"),
        ("alone", "2"),
    ]
    assert (live.tokens_alone, live.tokens_gateway) == (80, 20)
    assert lines == ["live: 1/2 problems, 10 tokens", "live: 2/2 problems, 60 tokens"]


def test_the_comparison_is_paired() -> None:
    pairs = [
        (row("alone", "a", tokens=40), row("gateway", "a", tokens=10, decision="stopped")),
        (row("alone", "b", tokens=60), row("gateway", "b", tokens=40, correct=False, decision="finished")),
    ]
    live = compare(pairs)
    assert (live.accuracy_alone, live.accuracy_gateway) == (1.0, 0.5)
    assert live.accuracy_change.value == -0.5
    assert live.saving is not None
    assert live.saving.value == 0.5
    assert live.time_saving is not None
    assert live.time_saving.value == 0.5
    assert live.decisions == {"stopped": 1, "finished": 1}
