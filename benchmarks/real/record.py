"""Stand between a collector and a server, pass everything on untouched, and keep the log-probabilities of each token.

    python -m benchmarks.real.record --upstream http://127.0.0.1:8301 --port 8302 --out top20.jsonl.gz

Traces keep entropies and no log-probabilities: with these, the bits of fewer symbols or of another treatment of the
tail can be computed for the same tokens. One line for each completion that ended: `{"asked", "turn", "text", "tokens",
"logprobs", "top_logprobs"}`, where `turn` is 1 for the first step and `asked` is the SHA-256 of the first message.
Lines belong to a trace by turn and text. So the finished steps of a problem that was cut off are not lost either.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from aiohttp import ClientSession, ClientTimeout, web

_DATA = b"data: "


class Completion:
    """One streamed chat completion, put together from its events as they pass."""

    def __init__(self, messages: Sequence[Mapping[str, str]]) -> None:
        # Turns of user and assistant alternate, so the third message is the second step's.
        self.turn = (len(messages) + 1) // 2
        self.asked = hashlib.sha256(messages[0]["content"].encode()).hexdigest() if messages else ""
        self.ended = False
        self.tokens: list[str] = []
        self.logprobs: list[float] = []
        self.top_logprobs: list[list[float]] = []
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take bytes of the event stream, cut anywhere."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(_DATA):
                self._event(line[len(_DATA) :].strip())

    def _event(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            self.ended = True
            return
        for choice in json.loads(payload).get("choices", []):
            for entry in (choice.get("logprobs") or {}).get("content") or []:
                self.tokens.append(entry["token"])
                self.logprobs.append(round(entry["logprob"], 5))
                self.top_logprobs.append([round(top["logprob"], 5) for top in entry["top_logprobs"]])

    def line(self) -> str:
        """As one line of the record."""
        row = {
            "asked": self.asked,
            "turn": self.turn,
            "text": "".join(self.tokens),
            "tokens": self.tokens,
            "logprobs": self.logprobs,
            "top_logprobs": self.top_logprobs,
        }
        return json.dumps(row, separators=(",", ":")) + "\n"


class Recorder:
    """Passes requests on and keeps what came back."""

    def __init__(self, upstream: str, out: Path) -> None:
        self.upstream = upstream.rstrip("/")
        self.out = out

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Pass one request on."""
        body = await request.read()
        asked = json.loads(body) if body else {}
        completion = Completion(asked.get("messages", []))
        async with (
            ClientSession(timeout=ClientTimeout(total=None)) as session,
            session.request(
                request.method,
                self.upstream + request.path_qs,
                data=body or None,
                headers={"Content-Type": "application/json"},
            ) as answer,
        ):
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
            await response.prepare(request)
            streamed = answer.content_type == "text/event-stream"
            async for data in answer.content.iter_any():
                if streamed:
                    completion.feed(data)
                await response.write(data)
            await response.write_eof()
        if completion.ended and completion.tokens:
            self._keep(completion)
        return response

    def _keep(self, completion: Completion) -> None:
        # A member of its own for each line: a file cut short loses one line and no other.
        with self.out.open("ab") as file:
            file.write(gzip.compress(completion.line().encode()))


def main() -> None:
    """Record until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--port", type=int, default=8302)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", Recorder(options.upstream, options.out).handle)
    web.run_app(app, host="127.0.0.1", port=options.port, print=None)


if __name__ == "__main__":
    main()
