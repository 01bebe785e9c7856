"""The backend for llama.cpp: its files, its errors, and its server in this process."""

from __future__ import annotations

import asyncio
import struct
import sys
from pathlib import Path

import pytest

from justenough.backends.llamacpp import GgufHeader, LlamaCppBackend, open_llamacpp, read_header
from justenough.backends.notation import model_name
from justenough.backends.openai import open_openai
from justenough.backends.registry import Options
from justenough.errors import BackendUnavailable, InputError, MissingExtra
from tests.conftest import GGUF


def test_llama_cpp_is_named_after_its_file(tmp_path: Path) -> None:
    header = read_header(GGUF)
    assert header == GgufHeader("justenough embedded", 640, has_template=True)
    assert model_name(GGUF, title=header.name) == "justenough-embedded"
    assert model_name(tmp_path / "Qwen3-8B-Q4.gguf", title="Qwen3 8B") == "Qwen3-8B-Q4"


def test_files_that_llama_cpp_cannot_load_are_refused(tmp_path: Path) -> None:
    short, cut, other = tmp_path / "short.gguf", tmp_path / "cut.gguf", tmp_path / "other.gguf"
    short.write_bytes(GGUF.read_bytes()[:60])
    cut.write_bytes(GGUF.read_bytes()[:500_000])
    other.write_bytes(b"something else")
    for path in (short, cut, other):
        with pytest.raises(InputError, match=f"{path.name} is not a complete GGUF file"):
            LlamaCppBackend(path)
    with pytest.raises(InputError, match="cannot be read"):
        open_llamacpp(str(tmp_path / "none.gguf"), Options())
    with pytest.raises(InputError, match="needs a file"):
        open_llamacpp("", Options())
    with pytest.raises(InputError, match="openai:MODEL"):
        open_llamacpp(str(GGUF), Options(base_url="http://127.0.0.1:1"))


@pytest.mark.parametrize("package", ["xllamacpp", "gguf"])
def test_without_a_package_the_extra_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"justenough\[llamacpp\]"):
        LlamaCppBackend(GGUF)


def test_a_server_can_be_stopped_before_its_first_request() -> None:
    for _ in range(20):
        backend = LlamaCppBackend(GGUF)
        asyncio.run(backend.close())
    with pytest.raises(BackendUnavailable):
        open_openai("m", Options(base_url=backend.base_url))


def test_a_file_without_a_model_is_refused_by_llama_cpp(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    # Magic, version 3, no tensor, one entry: `general.alignment` as a number of 32 bits.
    entry = struct.pack("<Q", 17) + b"general.alignment" + struct.pack("<II", 4, 32)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry)
    assert read_header(path) == GgufHeader(None, None, has_template=False)
    with pytest.raises(BackendUnavailable, match="does not load"):
        LlamaCppBackend(path)


def test_the_context_and_the_threads_are_those_of_each_stream() -> None:
    backend = open_llamacpp(str(GGUF), Options(concurrency=2, prompts="general"))
    try:
        assert (backend.concurrency, backend.prompts.name) == (2, "general")
        assert backend.signal(temperature=0.5, top_k=20).logits == "raw"
        assert backend.base_url.startswith("http://127.0.0.1:")
    finally:
        asyncio.run(backend.close())
