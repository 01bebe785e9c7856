"""Odd HTTP request lines and headers, sent as raw bytes to a gateway; none may reach a host but the operator's.

    python -m benchmarks.request_lines --inputs 100000

Every input is one TCP connection with mutated bytes: targets in all forms of RFC 9112, wrong methods and versions, odd
headers, folded lines, control characters, pieces cut anywhere. Three servers listen: the gateway, its upstream, and a
stranger whose address stands in the inputs in many spellings. It fails if the stranger gets a connection, if the
upstream gets a request whose `Host` is not its own, if the upstream key reaches anyone but the upstream, or if the
gateway stops answering.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from justenough.gateway.app.server import Server, build_server
from justenough.gateway.settings import GatewaySettings, Limits

KEY: Final = "sk-of-the-operator"
METHODS: Final = (
    "GET",
    "POST",
    "OPTIONS",
    "HEAD",
    "PUT",
    "DELETE",
    "PATCH",
    "CONNECT",
    "TRACE",
    "PRI",
    "get",
    "G@T",
    "",
)
FORMS: Final = (
    "*@{host}:{port}/x",
    "@{host}:{port}/x",
    "*.{host}:{port}/x",
    "http://{host}:{port}/x",
    "https://{host}:{port}/x",
    "HTTP://u:p@{host}:{port}/x",
    "//{host}:{port}/x",
    "///{host}:{port}/x",
    "/\\{host}:{port}/x",
    "\\\\{host}:{port}\\x",
    "/@{host}:{port}/x",
    "{host}:{port}",
    "{host}",
    ":{port}/x",
    "*",
    "?@{host}:{port}/",
    "#@{host}:{port}/",
    "%2F%2F{host}:{port}/x",
    "/%0d%0aHost:%20{host}:{port}",
    "/v1/models?u=http://{host}:{port}/",
    "/v1/../..//{host}:{port}/x",
    "/v1/chat/completions@{host}:{port}",
    "/v1/models;@{host}:{port}",
    "file:///etc/passwd",
    "/",
    "",
)
HOSTS: Final = ("127.0.0.1", "localhost", "[::1]", "0", "0x7f.1", "2130706433", "127.1", "LOCALHOST.", "127.0.0.1%00.x")
VERSIONS: Final = ("HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1.1 x", "")
HEADERS: Final = (
    "host: {host}:{port}",
    "Host: {host}:{port}\r\nHost: other",
    "x-forwarded-host: {host}:{port}",
    "forwarded: host={host}:{port}",
    "x-original-url: http://{host}:{port}/x",
    "x-rewrite-url: /x",
    "location: http://{host}:{port}/",
    "connection: upgrade\r\nupgrade: h2c",
    "connection: close",
    "transfer-encoding: chunked",
    "transfer-encoding: identity, chunked",
    "content-length: 5",
    "content-length: -1",
    "content-length: 5\r\ncontent-length: 6",
    "expect: 100-continue",
    "authorization: Bearer x@{host}:{port}",
    " folded: {host}:{port}",
    "x-odd: \x01\x02",
    "x-long: " + "a" * 4000,
    "no colon at all",
    ": empty name",
)


@dataclass(slots=True)
class Outcome:
    """What came of all inputs."""

    answers: Counter[str] = field(default_factory=Counter)
    """By status; `none`: the connection was closed without an answer."""
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(slots=True)
class Listener:
    """A server of the test's own: counts connections and answers at once."""

    port: int = 0
    connections: int = 0
    wrong: list[bytes] = field(default_factory=list)
    """Heads of requests that should not have come."""
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        own = b"host: 127.0.0.1:%d\r\n" % self.port
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if own not in head.lower() or KEY.encode() not in head:
                    self.wrong.append(head)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
                await writer.drain()
                break
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()


def request(rng: Random, port: int) -> bytes:
    """One odd request."""
    where = {"host": rng.choice(HOSTS), "port": port}
    target = rng.choice(FORMS).format(**where)
    plain = rng.random() < 0.6
    method, version = (rng.choice(METHODS[:4]), VERSIONS[0]) if plain else (rng.choice(METHODS), rng.choice(VERSIONS))
    head = f"{method} {target} {version}\r\n"
    # Half of them have nothing odd but their target.
    lines = [rng.choice(HEADERS).format(**where) for _ in range(0 if plain else rng.randrange(4))]
    data = bytearray((head + "".join(line + "\r\n" for line in lines) + "\r\n").encode("latin-1", "replace"))
    if rng.random() < 0.3:
        data += rng.choice((b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"GET http://127.0.0.1:%d/y HTTP/1.1\r\n\r\n" % port))
    for _ in range(0 if plain else rng.choice((0, 0, 1, 2, 5))):
        at = rng.randrange(len(data))
        change = rng.randrange(4)
        if change == 0:
            data[at] = rng.randrange(256)
        elif change == 1:
            data.insert(at, rng.choice(b" \t\r\n\x00@:/?#\\%*\xff"))
        elif change == 2:
            del data[at]
        else:
            data[at:at] = data[at : at + rng.randrange(1, 20)]
    return bytes(data)


async def send(port: int, data: bytes, rng: Random) -> str:
    """Send one input; the status of the answer, or `none`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        cut = rng.randrange(1, len(data)) if rng.random() < 0.2 and len(data) > 1 else len(data)
        writer.write(data[:cut])
        if cut < len(data):
            await asyncio.sleep(0)
            writer.write(data[cut:])
        async with asyncio.timeout(20):
            answer = await reader.read(64)
    except ConnectionError:
        return "none"
    finally:
        writer.close()
    return answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.") else "none"


async def fuzz(*, inputs: int, seed: int, concurrency: int = 64, report_every: int = 0) -> Outcome:
    """Send `inputs` odd requests of a seed."""
    upstream, stranger, outcome = Listener(), Listener(), Outcome()
    await upstream.start()
    await stranger.start()
    limits = Limits(receive_timeout_s=0.2, idle_timeout_s=5.0)
    settings = GatewaySettings(
        upstream=f"http://127.0.0.1:{upstream.port}", mode="off", upstream_key=KEY, limits=limits
    )
    server, socket = build_server(settings, host="127.0.0.1", port=0)
    port = socket.getsockname()[1]
    serving = asyncio.ensure_future(_serve(server, socket))
    while not server.started:
        await asyncio.sleep(0.01)
    begun = time.monotonic()
    numbers = iter(range(inputs))

    async def work() -> None:
        for number in numbers:
            rng = Random(f"{seed}/{number}")
            data = request(rng, stranger.port)
            try:
                outcome.answers[await send(port, data, rng)] += 1
            except TimeoutError:
                outcome.failures.append(f"input {number}: no answer within 20 s: {data[:200]!r}")
            if report_every and (number + 1) % report_every == 0:
                print(f"{number + 1} inputs, {dict(outcome.answers)}", file=sys.stderr, flush=True)

    await asyncio.gather(*[work() for _ in range(concurrency)])
    outcome.seconds = time.monotonic() - begun
    if stranger.connections:
        outcome.failures.append(f"another host got {stranger.connections} connections: {stranger.wrong[:3]!r}")
    if upstream.wrong:
        outcome.failures.append(f"{len(upstream.wrong)} wrong requests at the upstream: {upstream.wrong[:3]!r}")
    if await send(port, b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n", Random(0)) != "200":
        outcome.failures.append("the gateway does not answer any more")
    server.should_exit = True
    await serving
    await upstream.stop()
    await stranger.stop()
    return outcome


async def _serve(server: Server, socket: object) -> None:
    # Not `serve`: it would take this process's signal handlers.
    await server._serve([socket])  # type: ignore[list-item]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the fuzz; exit code 1 where something failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="how many (default 100,000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    outcome = asyncio.run(fuzz(inputs=options.inputs, seed=options.seed, report_every=10_000))
    print(f"{options.inputs} inputs in {outcome.seconds:.0f} s: {dict(sorted(outcome.answers.items()))}")
    for failure in outcome.failures[:20]:
        print(failure)
    print(f"{len(outcome.failures)} failures")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
