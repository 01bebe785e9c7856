"""llama.cpp's server for tests: its own counters, and a model that never ends by itself."""

from __future__ import annotations

import struct
from pathlib import Path

import httpx

_UINT32 = struct.pack("<I", 4)


def endless(gguf: Path, copy: Path, *, context: int) -> Path:
    """A copy of the embedded model's GGUF that knows no end of a turn and claims a long context.

    The model itself ends within the blink of an eye, so that a cancellation could not be told from its end.
    """
    data = bytearray(gguf.read_bytes().replace(b"<|end|>", b"<|eNd|>"))
    for key, value in ((b"llama.context_length", context), (b"tokenizer.ggml.eos_token_id", 0)):
        at = data.index(key + _UINT32) + len(key + _UINT32)
        data[at : at + 4] = struct.pack("<I", value)
    copy.write_bytes(data)
    return copy


def counter(server: str, name: str) -> float:
    """One of the server's own counters, such as `tokens_predicted_total`."""
    text = httpx.get(f"{server}/metrics", trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith(f"llamacpp:{name} ")]
    assert len(lines) == 1, f"{name} is not among the counters"
    return float(lines[0].split()[1])


def busy_slots(server: str) -> int:
    """Streams that the server is generating for."""
    return sum(slot["is_processing"] for slot in httpx.get(f"{server}/slots", trust_env=False).json())
