"""llama.cpp's own server with a model that never ends by itself, so that only a cancellation can end it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import GGUF
from tests.llama_server import endless

CONTEXT = 16_384


@pytest.fixture(scope="module")
def endless_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import xllamacpp

    path: Path = endless(GGUF, tmp_path_factory.mktemp("endless") / "endless.gguf", context=CONTEXT)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {"endless"}
    params.n_ctx, params.n_parallel = CONTEXT * 2, 2
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.warmup = False
    params.endpoint_metrics = params.endpoint_slots = True
    server = xllamacpp.Server(params)
    yield str(server.listening_address)
    del server
