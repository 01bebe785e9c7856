"""The smallest relay on the gateway's software stack: `python -m benchmarks.peers.bare UPSTREAM`.

Starlette on uvicorn (uvloop, httptools) before an aiohttp client. It passes every byte on at once and reads nothing.
The cost of the gateway is measured against it.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from benchmarks.peers.running import listening


def app(upstream: str) -> Starlette:
    """The relay as an ASGI application."""

    @asynccontextmanager
    async def lifespan(application: Starlette) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            connector=connector, auto_decompress=False, read_bufsize=256 * 1024
        ) as session:
            application.state.session = session
            yield

    async def relay(request: Request) -> StreamingResponse:
        session = cast("aiohttp.ClientSession", request.app.state.session)
        answer = await session.post(f"{upstream}{request.url.path}", data=await request.body())

        async def received() -> AsyncIterator[bytes]:
            async with answer:
                async for data in answer.content.iter_any():
                    yield data

        return StreamingResponse(received(), status_code=answer.status, media_type=answer.headers["content-type"])

    return Starlette(lifespan=lifespan, routes=[Route("/{path:path}", relay, methods=["POST"])])


def main() -> int:
    """Serve until a signal ends it."""
    config = uvicorn.Config(app(sys.argv[1]), log_config=None, access_log=False, ws="none", lifespan="on")
    with listening() as listener:
        uvicorn.Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
