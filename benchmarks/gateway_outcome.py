"""What a client reads from an answer of the gateway, for `benchmarks.gateway_fuzz`: an outcome, or an error."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.scripted import Answer
from justenough.gateway.stream.edits import limited_logprobs
from justenough.gateway.stream.events import one_line

_COMMENTS: Final = re.compile(rb"(?::[^\r\n]*\n\n)+")
"""What the gateway sends while an upstream only keeps the connection alive."""


@dataclass(slots=True)
class Received:
    """The gateway's answer at the client."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    begun: int = 0
    ended: bool = False

    async def send(self, message: Mapping[str, Any]) -> None:
        """ASGI's `send`."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
            self.begun += 1
        else:
            if self.ended or not self.begun:
                raise WrongError("a body before the start or after the end")
            self.body += message["body"]
            self.ended = not message.get("more_body", False)


class WrongError(Exception):
    """A client cannot read the gateway's answer."""


def read(received: Received, sent: list[Answer]) -> str:
    """The outcome that a client reads from the answer; raises if it cannot be read."""
    if received.begun != 1:
        raise WrongError(f"begun {received.begun} times")
    decision = received.headers.get(b"x-justenough", b"").decode().split(";")[0]
    if decision == "relayed":
        theirs = b"".join(sent[-1].content.pieces)
        # Where a server ignores `stream`, its answer lacks the log-probabilities that only the gateway wanted.
        shorter = (limited_logprobs(theirs, most) for most in (None, *range(1, 20)))
        if received.body != theirs and received.body in shorter:
            theirs = received.body
        if received.status != sent[-1].status or not received.body.startswith(theirs):
            raise WrongError("the upstream's answer was changed")
        if received.body == theirs and sent[-1].content.broken == received.ended:
            raise WrongError("broken, but ended" if received.ended else "not ended")
        return "relayed" if received.ended and received.body == theirs else "relayed until it broke"
    if not received.ended:
        raise WrongError("not ended")
    if received.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
        return "stream after comments" if _goes_on(received.body, sent) else _read_events(received)
    whole = json.loads(received.body)
    if whole.get("error"):
        if received.status < 400:
            raise WrongError("an error with a good status")
        return f"error {received.status} {decision or 'error'} {_code(whole)}"
    if decision in ("stopped", "finished", "observed", "audited"):
        # Only an upstream that counts its choices wrongly gives more than one.
        if not whole["choices"] or len({choice["index"] for choice in whole["choices"]}) < len(whole["choices"]):
            raise WrongError("no choice, or one of them twice")
        for choice in whole["choices"]:
            # An object in place of a text is what the upstream sent; it never replaces a text.
            if not isinstance(choice.get("message", {}).get("content", choice.get("text")), str | list | dict | None):
                raise WrongError("no text")
        return str(whole["justenough"]["decision"])
    if received.status != 200 or "labels" not in whole:
        raise WrongError("neither an answer nor an error")
    return "labelled"


def _goes_on(body: bytes, sent: list[Answer]) -> bool:
    """Whether the answer to the client's own request follows comments: its bytes, or one event if it is no stream."""
    comments = _COMMENTS.match(body)
    if comments is None or not sent:
        return False
    rest, theirs = body[comments.end() :], b"".join(sent[-1].content.pieces)
    return bool(theirs) and (rest.startswith(theirs) or rest.strip() == b"data: " + one_line(theirs))


def _read_events(received: Received) -> str:
    *blocks, rest = received.body.split(b"\n\n")
    if rest:
        raise WrongError("an event is not ended")
    decision, notes, unread, finished = None, [], False, False
    # Comments keep a connection alive; they are no events.
    blocks = [block for block in blocks if block and not block.startswith(b":")]
    for number, block in enumerate(blocks):
        if not block.startswith(b"data: ") or b"\n" in block:
            raise WrongError(f"no event: {block[:80]!r}")
        if block == b"data: [DONE]":
            if number + 1 != len([block for block in blocks if block]):
                raise WrongError("[DONE] before the end")
            if decision is None and not finished:
                # The decision stands beside the finish reason. An upstream that sends none is relayed.
                return "stream without a finish reason"
            if decision is None:
                raise WrongError("no decision")
            if unread and "unreadable_chunk" not in notes:
                raise WrongError("an event that is not JSON, and no note of it")
            return f"{decision} stream"
        # The gateway forwards what it does not understand.
        payload: Any = None
        try:
            payload = json.loads(block[6:])
        except RecursionError:
            # The gateway does not read members that it does not need, however deep they are.
            continue
        except ValueError:
            unread = unread or (decision is None and not _has_readable_text(block))
        if not isinstance(payload, dict):
            continue
        choices = payload.get("choices")
        finished = finished or any(
            isinstance(choice, dict) and isinstance(choice.get("finish_reason"), str) and choice["finish_reason"]
            for choice in (choices if isinstance(choices, list) else [])
        )
        report = payload.get("justenough")
        if isinstance(report, dict) and "decision" in report:
            decision, notes = report["decision"], report.get("notes", [])
        if payload.get("error"):
            return f"stream ended by {_code(payload)}"
    raise WrongError("a stream without an end marker")


def _has_readable_text(block: bytes) -> bool:
    """Whether only the log-probabilities of an event are damaged; the gate reads those only where it needs them."""
    before, member, _ = block[6:].partition(b'"logprobs":')
    try:
        json.loads(before + member + b"null}]}")
    except ValueError:
        return False
    return bool(member)


def _code(whole: dict[str, Any]) -> str:
    error = whole["error"]
    code = error.get("code") if isinstance(error, dict) else None
    ours = isinstance(code, str) and code.replace("_", "").isalpha() and len(code) < 30
    return str(code) if ours else "of the upstream"
