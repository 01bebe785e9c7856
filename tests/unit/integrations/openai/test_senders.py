"""The user's HTTP client in a thread: what is left early, and what belongs to another request by then."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from threading import Event
from types import SimpleNamespace
from typing import Any

import httpx

from justenough.integrations.openai.senders import SyncSender


class Head:
    """The head of an answer whose connection is one end of a pair of sockets."""

    http_version = "HTTP/1.1"

    def __init__(self, *, silent: bool) -> None:
        self.own, self.other = socket.socketpair()
        self.own.settimeout(60)
        self.silent = silent
        self.is_closed = False
        self.closing, self.closed = Event(), Event()
        self.extensions = {"network_stream": SimpleNamespace(get_extra_info=lambda _: self.own)}

    def iter_raw(self) -> Iterator[bytes]:
        while self.silent and (data := self.own.recv(1)):
            yield data
        self.close()

    def close(self) -> None:
        """Like that of httpx: the connection is free for another request before this returns."""
        self.is_closed = True
        self.closing.set()
        self.closed.wait(60)


def test_a_request_that_is_left_before_its_head_came_is_closed_though_the_server_is_silent() -> None:
    head, sent, answered = Head(silent=True), Event(), Event()
    head.closed.set()

    def send(request: Any, *, stream: bool) -> Any:
        sent.set()
        assert answered.wait(60)
        return head

    async def leave() -> None:
        sender = SyncSender(SimpleNamespace(send=send), httpx)
        task = asyncio.create_task(sender.send(None, decode=False))
        await asyncio.to_thread(sent.wait, 60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        answered.set()
        assert await asyncio.to_thread(head.closing.wait, 30)

    with head.own, head.other:
        asyncio.run(leave())


def test_leaving_an_answer_that_was_read_leaves_its_connection_to_the_next_request() -> None:
    head = Head(silent=False)

    async def leave() -> None:
        sender = SyncSender(SimpleNamespace(send=lambda request, *, stream: head), httpx)
        reply = await sender.send(None, decode=False)
        await asyncio.to_thread(head.closing.wait, 60)
        task = asyncio.create_task(reply.leave())
        await asyncio.sleep(0)
        head.other.send(b"x")
        assert head.own.recv(1) == b"x"
        head.closed.set()
        await task

    with head.own, head.other:
        asyncio.run(leave())
