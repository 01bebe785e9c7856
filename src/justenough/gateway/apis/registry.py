"""The APIs by the kind of their path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from justenough.gateway.apis.api import Api
from justenough.gateway.apis.messages import Messages
from justenough.gateway.apis.ollama import Ollama
from justenough.gateway.apis.responses import Responses
from justenough.gateway.exchange import ErrorShape
from justenough.gateway.place import Kind, place_of

APIS: Final[Mapping[Kind, Api]] = {
    "response": Responses(),
    "message": Messages(),
    "ollama_chat": Ollama(generates=False),
    "ollama_generate": Ollama(generates=True),
}


def shape_at(path: str, target: str) -> ErrorShape:
    """How a client of this path expects errors."""
    place = place_of(path, target)
    return ErrorShape() if place is None else APIS.get(place.kind) or ErrorShape()
