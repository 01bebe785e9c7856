"""The plugin inside vLLM's server: `make test-vllm` on runner V1, `make test-vllm-v2` on Model Runner V2."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from justenough.gate import Decision, Gate, GateSettings
from justenough.signal.signal import Signal
from justenough.wire.events import DONE, EventReader
from justenough.wire.lenient import read_chunk
from justenough.wire.logprobs import tokens_of
from tests.conftest import CHECKPOINT
from tests.e2e.gateway.through import ANYTHING, MODEL
from tests.unit.gateway.serving import calibration_of
from tests.vllm.conftest import IS_V2, PATIENCE_S, REASONING, generated, measured, serving

pytestmark = pytest.mark.vllm

# The interpreter of Model Runner V2 generates few tokens a second.
PROBLEMS = ("47*36", "68*71") if IS_V2 else ("47*36", "68*71", "91*84", "23*57")
PLUGIN = (
    *REASONING,
    "--worker-extension-cls",
    "justenough.integrations.vllm.worker.Extension",
    "--logits-processors",
)
# Three long answers do not fit into its cache together, so that one of them is preempted.
SMALL = ("--num-gpu-blocks-override", "8", "--no-enable-prefix-caching")
CALIBRATION = calibration_of(ANYTHING, model=MODEL, temperature=0.0)
FULL = Signal(top_k=None, tail="full", splitter="paragraph", logits="raw", temperature=0.0)


class Server(NamedTuple):
    url: str
    changed: Path

    @property
    def changed_rows(self) -> int:
        """Rows of logits that the plugin has changed."""
        return sum(map(int, self.changed.read_text().split())) if self.changed.exists() else 0


Uncut = Callable[[str], "Reply"]


@pytest.fixture(scope="module")
def uncut(server: Server) -> Uncut:
    """The answer of a gated request whose thought is never cut, once for each problem."""
    return cache(lambda problem: ask(server.url, problem, id=f"uncut-{problem[:2]}", justenough=text_of(-1.0)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("plugin")
    CALIBRATION.save(folder / "calibration.json")
    variables = {
        "JUSTENOUGH_CALIBRATION": str(folder / "calibration.json"),
        "VLLM_PLUGINS": "justenough",
        "CHANGED_ROWS": str(folder / "changed"),
    }
    processors = ("tests.vllm.probe:Before", "justenough:VLLMProcessor", "tests.vllm.probe:After")
    with serving(folder / "log", *PLUGIN, *processors, *SMALL, **variables) as url:
        yield Server(url, folder / "changed")


class Reply(NamedTuple):
    message: dict[str, Any]
    tokens: int
    logprobs: list[Any]
    """The entries of its tokens."""
    report: dict[str, Any]

    def replayed(self, settings: GateSettings) -> list[Decision]:
        """What the gate decides on the log-probabilities of this very answer."""
        gate, decisions = Gate(settings), []
        for token in self.logprobs:
            if token.text == "</think>":
                break
            decision = gate.feed(token)
            if decision.tokens and decision.reason != "within_step":
                decisions.append(decision)
                if decision.ends:
                    break
        return decisions


def ask(url: str, problem: str = PROBLEMS[0], *, id: str = "one", tokens: int = 400, **args: Any) -> Reply:
    """One request of at most so many tokens; `args` are those of the plugin, none: not gated."""
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": problem}],
        "temperature": 0,
        "max_tokens": tokens,
        "logprobs": True,
        "top_logprobs": 20,
    }
    if args:
        body["vllm_xargs"] = args | {"justenough_id": id}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    reply = answer.json()
    (choice,) = reply["choices"]
    entries = tokens_of(json.dumps(choice["logprobs"]).encode())
    decided = httpx.get(f"{url}/justenough/decisions/{id}", timeout=PATIENCE_S).json() if args else {}
    return Reply(choice["message"], reply["usage"]["completion_tokens"], entries, decided)


def together(url: str, *requests: dict[str, Any]) -> list[Reply]:
    """Several requests at once, in their order."""
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda each: ask(url, **each), requests))


def text_of(threshold: float, signal: Signal | None = None) -> str:
    calibration = calibration_of(threshold, model=MODEL, temperature=0.0)
    return (calibration if signal is None else replace(calibration, signal=signal)).dumps()


def settings_of(threshold: float) -> GateSettings:
    return replace(GateSettings.of(calibration_of(threshold, model=MODEL)), max_steps=1_000_000)


def rows(decisions: list[Decision]) -> list[tuple[str, int]]:
    return [(one.reason, one.tokens) for one in decisions]


def told(reply: Reply) -> list[tuple[str, int]]:
    return [(one["reason"], one["tokens"]) for one in reply.report["steps"]]


def halfway(reply: Reply) -> float:
    """A threshold that a middle step is the first to meet."""
    bits = [one.entropy or 0.0 for one in reply.replayed(settings_of(-1.0))]
    assert len(bits) > 2
    # A little above it: the engine and the client round differently.
    return 1.001 * min(bits[1:])


def test_a_gated_request_generates_fewer_tokens(server: Server) -> None:
    before = generated(server.url)
    whole = ask(server.url)
    between = generated(server.url)
    cut = ask(server.url, justenough=1)
    after = generated(server.url)
    assert (between - before, after - between) == (whole.tokens, cut.tokens)
    assert cut.tokens < whole.tokens == 276
    assert cut.report["decision"] == "stopped"
    thought = cut.message["reasoning"].removeprefix("<think>")
    assert whole.message["reasoning"].removeprefix("<think>").startswith(thought)
    assert thought.endswith("\n\n")
    assert cut.message["content"]
    assert "</think>" not in cut.message["content"]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_decisions_are_those_of_replay_on_the_same_logits(server: Server, uncut: Uncut, problem: str) -> None:
    assert told(uncut(problem)) == rows(uncut(problem).replayed(settings_of(-1.0)))
    threshold = halfway(uncut(problem))
    reply = ask(server.url, problem, justenough=text_of(threshold))
    expected = reply.replayed(settings_of(threshold))
    assert told(reply) == rows(expected)
    bits = [one["entropy"] for one in reply.report["steps"]]
    assert bits == pytest.approx([one.entropy for one in expected], abs=1e-5)
    assert expected[-1].reason == "confident"
    assert reply.report["cut_at"] == sum(one.tokens for one in expected)
    assert reply.logprobs[reply.report["cut_at"]].text == "</think>"


def test_bits_over_the_whole_vocabulary_are_other_bits(server: Server, uncut: Uncut) -> None:
    top, full = uncut(PROBLEMS[0]), ask(server.url, justenough=text_of(-1.0, FULL))
    assert told(top) == told(full)
    pairs = [
        (one["entropy"], other["entropy"]) for one, other in zip(top.report["steps"], full.report["steps"], strict=True)
    ]
    assert all(0 < one < other < one + 0.1 for one, other in pairs)


def test_only_rows_of_gated_requests_change_and_only_after_the_cut(server: Server) -> None:
    before = server.changed_rows
    gated = {"problem": PROBLEMS[1], "id": "gated", "justenough": 1}
    never = {"id": "never", "justenough": text_of(-1.0), "tokens": 60}
    _, cut, _ = together(server.url, {"tokens": 60}, gated, never)
    # The rows of its end, its answer and the token that ends the turn, one each.
    assert server.changed_rows - before == cut.tokens - cut.report["cut_at"] > 1


def test_requests_together_decide_as_each_alone_also_when_preempted(server: Server, uncut: Uncut) -> None:
    requests = [
        {"problem": problem, "id": f"many-{number}", "justenough": text_of(-1.0)}
        for number, problem in enumerate(PROBLEMS)
    ]
    before = measured(server.url, "num_preemptions_total")
    replies = together(server.url, *requests, {"problem": "55*66"}, {"problem": "66*77"})
    assert measured(server.url, "num_preemptions_total") > before
    for problem, reply in zip(PROBLEMS, replies, strict=False):
        one = uncut(problem)
        assert told(reply) == told(one)
        assert reply.report["cut_at"] is one.report["cut_at"] is None
        bits = [step["entropy"] for step in one.report["steps"]]
        assert [step["entropy"] for step in reply.report["steps"]] == pytest.approx(bits, abs=1e-4)


def test_a_client_that_leaves_disturbs_nobody(server: Server) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "47*36"}], "max_tokens": 400, "stream": True}
    body["vllm_xargs"] = {"justenough": text_of(-1.0), "justenough_id": "leaves"}
    body["temperature"] = 0
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE_S) as answer:
        reader, seen = EventReader(), 0
        for data in answer.iter_bytes():
            seen += sum(bool(read_chunk(event).choices) for event in reader.feed(data) if event != DONE)
            if seen > 3:
                break
    replies = together(server.url, *({"id": f"stays-{number}", "justenough": 1} for number in range(2)))
    assert told(replies[0]) == told(replies[1])
    assert {reply.report["decision"] for reply in replies} == {"stopped"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"vllm_xargs": {"justenough": "/etc/hostname"}}, "InputError: justenough is '/etc/hostname'"),
        ({"vllm_xargs": {"justenough": 1}, "temperature": 0.5}, "SignalMismatch: the request's temperature is 0.5"),
        ({"vllm_xargs": {"justenough": 1}, "min_tokens": 3}, "SignalMismatch: min_tokens is 3"),
    ],
)
def test_a_request_that_cannot_be_gated_gets_an_error(server: Server, more: dict[str, Any], words: str) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "47*36"}], "temperature": 0} | more
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE_S)
    assert answer.status_code == 400
    assert words in answer.text


def test_a_request_that_nobody_knows_has_no_decisions(server: Server) -> None:
    assert httpx.get(f"{server.url}/justenough/decisions/unknown", timeout=PATIENCE_S).status_code == 404


@pytest.mark.skipif(not IS_V2, reason="runner V1 refuses named logits processors with a draft model")
def test_with_a_draft_model_the_decisions_are_the_same(tmp_path: Path, uncut: Uncut) -> None:
    drafts = json.dumps({"model": str(CHECKPOINT), "method": "draft_model", "num_speculative_tokens": 3})
    thresholds = {problem: halfway(uncut(problem)) for problem in PROBLEMS}
    options = (*PLUGIN, "justenough:VLLMProcessor", "--speculative-config", drafts)
    with serving(tmp_path / "log", *options, VLLM_PLUGINS="justenough") as url:
        for problem, threshold in thresholds.items():
            reply = ask(url, problem, justenough=text_of(threshold))
            expected = uncut(problem).replayed(settings_of(threshold))
            assert told(reply) == rows(expected)
            assert reply.report["cut_at"] == sum(one.tokens for one in expected)
        assert measured(url, "spec_decode_num_accepted_tokens_total") > 0


def test_a_server_with_the_package_starts_without_using_it(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as url:
        assert generated(url) > 0
        assert httpx.get(f"{url}/justenough/decisions/one", timeout=PATIENCE_S).status_code == 404
        # Before the end of the server: its front end reports that its engine ends.
        assert "Traceback" not in (tmp_path / "log").read_text()
