"""The endpoint `GET /justenough/decisions/{id}` of vLLM's server, loaded where VLLM_PLUGINS names `justenough`.

It needs the workers' extension: `--worker-extension-cls justenough.integrations.vllm.worker.Extension`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from justenough.files import Json

if TYPE_CHECKING:
    from argparse import Namespace

    from starlette.applications import Starlette
    from starlette.datastructures import State

PATH: Final = "/justenough/decisions/{id}"


class Engine(Protocol):
    """The part of vLLM's engine client that is needed."""

    async def collective_rpc(
        self, method: str, timeout: float | None = None, args: tuple[object, ...] = ()
    ) -> Sequence[dict[str, Json] | None]:
        """Call a method of every worker."""


class Decisions:
    """The plugin of vLLM's group `vllm.endpoint_plugins`."""

    name = "justenough"
    required_tasks = ("generate",)

    def attach_router(self, app: Starlette) -> None:
        """Add the route to the server."""
        app.add_route(PATH, decisions, methods=["GET"])

    async def init_state(self, engine_client: Engine | None, state: State, args: Namespace) -> None:
        """Keep the engine for the route."""
        state.justenough_engine = engine_client


async def decisions(request: Request) -> Response:
    """The decisions on a request; 404 if no worker has seen it, or its decisions were dropped for newer ones."""
    engine: Engine = request.app.state.justenough_engine
    id = request.path_params["id"]
    # Every rank of a tensor-parallel engine decides the same.
    reports = await engine.collective_rpc("justenough_decisions", args=(id,))
    report = next((one for one in reports if one is not None), None)
    if report is None:
        message = f"no decisions on {id!r}: send `justenough` and `justenough_id` in `vllm_xargs`"
        return JSONResponse({"error": {"message": message, "type": "not_found_error", "code": 404}}, status_code=404)
    return JSONResponse(report)
