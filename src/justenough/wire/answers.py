"""Short answers of servers: their models, and what the gateway's probe reads of llama.cpp and vLLM."""

from __future__ import annotations

import msgspec

from justenough.wire.values import read_json


class Model(msgspec.Struct):
    """One of the server's models."""

    id: str
    owned_by: str | None = None


class Sampling(msgspec.Struct):
    """What llama.cpp samples with where a request does not say."""

    temperature: float | None = None


class Generation(msgspec.Struct):
    """llama.cpp's defaults of a generation."""

    params: Sampling = msgspec.field(default_factory=Sampling)


class Props(msgspec.Struct):
    """llama.cpp's answer at `/props`."""

    default_generation_settings: Generation


class Version(msgspec.Struct):
    """vLLM's answer at `/version`."""

    version: str


class Prompt(msgspec.Struct):
    """The prompt that a server makes of a chat: llama.cpp's `/apply-template`, vLLM's `/detokenize`."""

    prompt: str


class Tokens(msgspec.Struct):
    """Token ids: vLLM's `/tokenize`."""

    tokens: list[int]


def read_models(data: bytes) -> tuple[Model, ...]:
    """The models of `/v1/models` that have a name; raises `BackendRejected` for what is not JSON."""
    answer = read_json(data)
    rows = answer.get("data") if isinstance(answer, dict) else None
    models: list[Model] = []
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and isinstance(name := row.get("id"), str):
            owner = row.get("owned_by")
            models.append(Model(name, owner if isinstance(owner, str) else None))
    return tuple(models)
