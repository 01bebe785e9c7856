"""Fixtures of the whole suite: llama.cpp's own server, in this process, on the embedded model's GGUF."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest
from hypothesis import HealthCheck, settings

# Machines are shared and noisy: how fast an example runs is measured in benchmarks/, never asserted in a test.
settings.register_profile("justenough", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("justenough")

# Many tests start the command line; without byte code each of them would compile the whole package.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Each worker has one core, and so have the processes that it starts: more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# argparse looks for translated messages in many folders, each time that a parser is built.
os.environ["LANGUAGE"] = "C"

CHECKPOINT = Path(__file__).parent.parent / "models" / "embedded"
GGUF = CHECKPOINT / "model.gguf"


@pytest.fixture(scope="session")
def llama_server() -> Iterator[str]:
    """The server's base URL, without `/v1`; one thread, cache in F32, metrics and slots open."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(GGUF)
    params.model_alias = {"justenough-embedded"}
    params.n_ctx, params.n_parallel = 640 * 4, 4
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.warmup = False
    params.endpoint_metrics = params.endpoint_slots = True
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    # Flash attention on the CPU rounds queries to half precision.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    yield str(server.listening_address)
    del server


def pytest_collection_finish() -> None:
    """Keep modules and tests out of the garbage collector: it would go through a million objects again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_authority(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One certificate authority: each httpx client reads the file of all of them, and every server here is local.

    The variable goes before `certifi` and reaches the processes that tests start. Tests that download keep it as it is.
    """
    end = "-----END CERTIFICATE-----\n"
    first = Path(certifi.where()).read_text(encoding="utf-8").partition(end)[0]
    file = tmp_path_factory.mktemp("authority") / "first.pem"
    file.write_text(first + end, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(certifi, "where", lambda: str(file))
        if not any(item.get_closest_marker("real") for item in request.session.items):
            patched.setenv("SSL_CERT_FILE", str(file))
        yield
