"""Requests of the other APIs, and what a client reads in their answers."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

import httpx

QUESTION: Final = "What is 6*7?"
MESSAGES: Final = [{"role": "user", "content": QUESTION}]
REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "/v1/responses": {"model": "mock", "input": QUESTION},
    "/v1/messages": {"model": "mock", "messages": MESSAGES, "max_tokens": 100},
    "/api/chat": {"model": "mock", "messages": MESSAGES},
    "/api/generate": {"model": "mock", "prompt": QUESTION},
}


def calls_in(path: str, answer: httpx.Response) -> list[tuple[str, str, Any]]:
    """Id, name and arguments of each call of a tool; the events of a call must be complete."""
    values = values_of(path, answer)
    if is_ollama(path):
        messages = [value.get("message", {}) for value in values]
        rows = [call["function"] for message in messages for call in message.get("tool_calls", ())]
        return [("", row["name"], row["arguments"]) for row in rows]
    if path == "/v1/messages":
        starts = [value for value in values if value["type"] == "content_block_start"]
        blocks = {value["index"]: value["content_block"] for value in starts}
        assert list(blocks) == list(range(len(blocks)))
        texts = dict.fromkeys(blocks, "")
        for value in values:
            if value["type"] == "content_block_delta":
                texts[value["index"]] += value["delta"].get("partial_json", "")
        stops = [value["index"] for value in values if value["type"] == "content_block_stop"]
        assert stops == list(blocks)
        calls = [(at, block) for at, block in blocks.items() if block["type"] == "tool_use"]
        assert all(block["input"] == {} for _, block in calls)
        return [(block["id"], block["name"], json.loads(texts[at])) for at, block in calls]
    output = values[-1]["response"]["output"]
    items = [(at, item) for at, item in enumerate(output) if item["type"] == "function_call"]
    for at, item in items:
        own = [value for value in values if value.get("output_index") == at]
        added, delta, done, last = own
        kinds = [
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
        ]
        assert [value["type"].removeprefix("response.") for value in own] == kinds
        assert added["item"] == item | {"arguments": "", "status": "in_progress"}
        assert delta["item_id"] == done["item_id"] == item["id"]
        assert delta["delta"] == done["arguments"] == item["arguments"]
        assert last["item"] == item
    return [(item["call_id"], item["name"], json.loads(item["arguments"])) for _, item in items]


class Seen(NamedTuple):
    """What a client reads in an answer."""

    status: int
    thought: str = ""
    text: str = ""
    finish: str | None = None
    prompt: int | None = None
    tokens: int | None = None
    error: str | None = None
    report: Any = None


def is_ollama(path: str) -> bool:
    return path.startswith("/api")


def values_of(path: str, answer: httpx.Response) -> list[dict[str, Any]]:
    """The events, or the one answer; each event's name must be its type."""
    if answer.headers["content-type"].startswith("application/json"):
        return [answer.json()]
    if is_ollama(path):
        assert answer.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in answer.text.splitlines()]
    out: list[dict[str, Any]] = []
    for event in re.split("\n\n+", answer.text.strip()):
        lines = dict(line.split(": ", 1) for line in event.split("\n"))
        value = json.loads(lines["data"])
        assert lines["event"] == value["type"]
        out.append(value)
    return out


def seen(path: str, answer: httpx.Response) -> Seen:
    """What a careful client reads; the order of the events must be right."""
    values = values_of(path, answer)
    if answer.status_code != 200:
        error = values[0]["error"]
        return Seen(answer.status_code, error=error if isinstance(error, str) else error["message"])
    read = _response if path == "/v1/responses" else _message if path == "/v1/messages" else _ollama
    return read(values)


def _response(values: list[dict[str, Any]]) -> Seen:
    last = values[-1]
    if last["type" if len(values) > 1 else "object"] == "error":
        return Seen(200, error=last["message"])
    whole = last.get("response", last)
    texts = {item["type"]: "".join([part["text"] for part in item.get("content", ())]) for item in whole["output"]}
    if len(values) > 1:
        assert [value["sequence_number"] for value in values] == list(range(len(values)))
        assert [value["type"] for value in values[:2]] == ["response.created", "response.in_progress"]
        for kind, name in (("reasoning", "reasoning_text"), ("message", "output_text")):
            deltas = [value["delta"] for value in values if value["type"] == f"response.{name}.delta"]
            dones = [value["text"] for value in values if value["type"] == f"response.{name}.done"]
            assert "".join(deltas) == "".join(dones) == texts.get(kind, "")
        opened, closed = ([v for v in values if v["type"] == f"response.output_item.{n}"] for n in ("added", "done"))
        assert [value["item"]["id"] for value in opened] == [value["item"]["id"] for value in closed]
        assert [value["item"] for value in closed] == whole["output"]
        assert last["type"] == f"response.{whole['status']}"
    usage = whole["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    counts = usage["input_tokens"], usage["output_tokens"]
    return Seen(
        200,
        texts.get("reasoning", ""),
        texts.get("message", ""),
        whole["status"],
        *counts,
        report=whole.get("justenough"),
    )


def _message(values: list[dict[str, Any]]) -> Seen:
    if values[-1]["type"] == "error":
        return Seen(200, error=values[-1]["error"]["message"])
    if len(values) == 1:
        whole = values[0]
    else:
        assert [values[0]["type"], *[value["type"] for value in values[-2:]]] == [
            "message_start",
            "message_delta",
            "message_stop",
        ]
        whole = values[0]["message"] | values[-2] | values[-2]["delta"]
        whole["usage"] = values[0]["message"]["usage"] | values[-2]["usage"]
        whole["content"] = []
        for value in values[1:-2]:
            if value["type"] == "content_block_start":
                assert value["index"] == len(whole["content"])
                whole["content"].append(dict(value["content_block"]))
            elif value["type"] == "content_block_delta" and value["delta"]["type"] != "input_json_delta":
                block, kind = whole["content"][value["index"]], value["delta"]["type"].removesuffix("_delta")
                assert value["index"] == len(whole["content"]) - 1
                block[kind] = block.get(kind, "") + value["delta"][kind]
    parts = {kind: "".join([block.get(kind, "") for block in whole["content"]]) for kind in ("thinking", "text")}
    usage = whole["usage"]
    return Seen(
        200,
        parts["thinking"],
        parts["text"],
        whole["stop_reason"],
        usage["input_tokens"],
        usage["output_tokens"],
        report=whole.get("justenough"),
    )


def _ollama(values: list[dict[str, Any]]) -> Seen:
    last = values[-1]
    if "error" in last:
        return Seen(200, error=last["error"])
    assert [value["done"] for value in values] == [False] * (len(values) - 1) + [True]
    parts = [value.get("message", value) for value in values]
    thought = "".join([part.get("thinking", "") for part in parts])
    text = "".join([part.get("content", part.get("response", "")) for part in parts])
    counts = last.get("prompt_eval_count"), last.get("eval_count")
    return Seen(200, thought, text, last["done_reason"], *counts, report=last.get("justenough"))
