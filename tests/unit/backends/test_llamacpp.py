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
    assert header == GgufHeader("justenough embedded", 640)
    assert model_name(GGUF, title=header.name) == "justenough-embedded"
    assert model_name(tmp_path / "Qwen3-8B-Q4.gguf", title="Qwen3 8B") == "Qwen3-8B-Q4"


def test_files_that_llama_cpp_cannot_load_are_refused(tmp_path: Path) -> None:
    short, cut, other = tmp_path / "short.gguf", tmp_path / "cut.gguf", tmp_path / "other.gguf"
    short.write_bytes(GGUF.read_bytes()[:60])
    cut.write_bytes(GGUF.read_bytes()[:500_000])
    other.write_bytes(b"something else")
    with pytest.raises(InputError, match="not a GGUF file"):
        LlamaCppBackend(other)
    with pytest.raises(InputError, match="ends inside its header"):
        LlamaCppBackend(short)
    with pytest.raises(BackendUnavailable, match="does not load"):
        LlamaCppBackend(cut)
    with pytest.raises(InputError, match="cannot be read"):
        open_llamacpp(str(tmp_path / "none.gguf"), Options())
    with pytest.raises(InputError, match="needs a file"):
        open_llamacpp("", Options())
    with pytest.raises(InputError, match="openai:MODEL"):
        open_llamacpp(str(GGUF), Options(base_url="http://127.0.0.1:1"))


def test_without_the_wheel_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(MissingExtra, match=r"justenough\[llamacpp\]"):
        LlamaCppBackend(GGUF)


def test_a_server_that_was_never_asked_can_be_stopped() -> None:
    for _ in range(20):
        backend = LlamaCppBackend(GGUF)
        asyncio.run(backend.close())
    with pytest.raises(BackendUnavailable):
        open_openai("m", Options(base_url=backend.base_url))


def gguf(*entries: tuple[str, int, bytes], version: int = 3) -> bytes:
    """A GGUF header with these entries: key, type of the value, and its bytes."""
    data = b"GGUF" + struct.pack("<IQQ", version, 0, len(entries))
    for key, kind, value in entries:
        data += struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value
    return data


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def test_the_header_is_read_up_to_the_context_length(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(
        gguf(
            ("general.quantized", 7, b"\x01"),
            ("general.tags", 9, struct.pack("<IQ", 8, 2) + text("a") + text("bc")),
            ("general.sizes", 9, struct.pack("<IQ", 4, 3) + bytes(12)),
            ("general.name", 8, text("Qwen3 8B")),
            ("qwen3.context_length", 4, struct.pack("<I", 40960)),
            ("this entry is cut off", 8, b""),
        )
    )
    assert read_header(path) == GgufHeader("Qwen3 8B", 40960)


def test_a_header_without_a_name_or_a_context_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf(("general.alignment", 4, struct.pack("<I", 32))))
    assert read_header(path) == GgufHeader(None, None)


@pytest.mark.parametrize("version", [1, 4])
def test_other_versions_of_gguf_are_refused(tmp_path: Path, version: int) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf(version=version))
    with pytest.raises(InputError, match=f"version {version} of GGUF"):
        read_header(path)


def test_the_context_and_the_threads_are_those_of_each_stream() -> None:
    backend = open_llamacpp(str(GGUF), Options(concurrency=2, prompts="general"))
    try:
        assert (backend.concurrency, backend.prompts.name) == (2, "general")
        assert backend.signal(temperature=0.5, top_k=20).logits == "raw"
        assert backend.base_url.startswith("http://127.0.0.1:")
    finally:
        asyncio.run(backend.close())
