"""The models that a server lists."""

from __future__ import annotations

import msgspec

from justenough.wire.values import read_json


class Model(msgspec.Struct):
    """One of the server's models."""

    id: str
    owned_by: str | None = None
    max_model_len: int | None = None
    """Tokens that it holds; only vLLM reports it."""


def read_models(data: bytes) -> tuple[Model, ...]:
    """The models of `/v1/models` that have a name; raises `BackendRejected` for what is not JSON."""
    answer = read_json(data)
    rows = answer.get("data") if isinstance(answer, dict) else None
    models: list[Model] = []
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and isinstance(name := row.get("id"), str):
            owner, size = row.get("owned_by"), row.get("max_model_len")
            models.append(Model(name, owner if isinstance(owner, str) else None, size if type(size) is int else None))
    return tuple(models)
