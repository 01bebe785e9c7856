"""Damages inputs: changes JSON values and bytes at random, the same way for the same seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Final, cast

from justenough.trace import Json

_WORDS: Final = """
    choices delta content reasoning_content reasoning logprobs top_logprobs logprob token tokens
    token_logprobs text finish_reason usage prompt_tokens completion_tokens id index error messages role n
    stream justenough mode threshold max_steps decisions max_tokens max_completion_tokens prompt
    stream_options include_usage temperature tools type tool_calls response_format prompt_progress total model
    echo modalities reasoning_effort vendor
"""
NAMES: Final = tuple(_WORDS.split())
"""Names of the protocol's members, which the fuzzer puts in wrong places."""
_TEXTS: Final = (
    *("", "a", " ", "\n\n", "<think>", "</think>", "<thi", "nk>", "stop", "length", "assistant", "user", "gate", "off"),
    *("Say OK.", "é", "\U0001f914", "\ufeff", "\x00", "x" * 3000, "[DONE]", "data: ", '"logprobs":null', "\\ud800"),
)
_NUMBERS: Final = (0, 1, -1, 2, 20, 1e-9, 0.5, -0.1, -9999.0, 1e308, 2**31, 2**63, -(2**63), 2**64, 10**25)
_BYTES: Final = tuple(
    value.encode("latin-1")
    for value in (
        *("\n", "\n\n", "\r", "\r\n\r\n", "data:", "data: [DONE]\n\n", "event: error\n", ": x\n\n", "retry: 0\n"),
        *("{", "}", "[", "]", '"', ",", ":", "null", "true", "NaN", "1e999", "-0", "1" + "0" * 400, '"\\ud800"'),
        *(
            "\xff",
            "\xc3",
            "\xef\xbb\xbf",
            "\x00",
            "\\",
            "\\u0000",
            "[" * 5000,
            '{"a":' * 2000,
            '{"error":{}}',
            "<think>",
        ),
    )
)


def value(rng: Random, depth: int = 2) -> Json:
    """A random JSON value with the protocol's names."""
    kind = rng.randrange(8 if depth else 6)
    if kind == 0:
        return None
    if kind == 1:
        return rng.random() < 0.5
    if kind in (2, 3):
        return rng.choice(_NUMBERS)
    if kind in (4, 5):
        return rng.choice(_TEXTS)
    size = rng.randrange(4)
    if kind == 6:
        return [value(rng, depth - 1) for _ in range(size)]
    return {rng.choice(NAMES): value(rng, depth - 1) for _ in range(size)}


def changed(rng: Random, tree: Json) -> Json:
    """The value with one place replaced, removed, added, renamed or doubled; unchanged parts are shared."""
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        key = rng.choice(list(tree))
        out = dict(tree)
        if rng.random() < 0.6:
            out[key] = changed(rng, out[key])
            return out
        kind = rng.randrange(3)
        if kind == 0:
            del out[key]
        elif kind == 1:
            out[rng.choice(NAMES)] = out.pop(key)
        else:
            out[rng.choice(NAMES)] = value(rng)
        return out
    if isinstance(tree, list) and tree and rng.random() < 0.85:
        at = rng.randrange(len(tree))
        kind = rng.randrange(5)
        if kind == 0:
            return [*tree[:at], *tree[at + 1 :]]
        if kind == 1:
            return [*tree[:at], tree[at], *tree[at:]]
        return [*tree[:at], changed(rng, tree[at]), *tree[at + 1 :]]
    return value(rng)


def worse(rng: Random, data: bytes) -> bytes:
    """The bytes with one range removed, doubled or overwritten, or with something inserted."""
    at = rng.randrange(len(data) + 1)
    until = min(len(data), at + 1 + int(rng.expovariate(0.1)))
    kind = rng.randrange(6)
    if kind == 0:
        return data[:at] + data[until:]
    if kind == 1:
        return data[:until] + data[at:]
    if kind == 2:
        return data[:at] + rng.randbytes(until - at) + data[until:]
    if kind == 3:
        return data[:at]
    return data[:at] + rng.choice(_BYTES) + data[at if kind == 4 else until :]


def split(rng: Random, data: bytes) -> list[bytes]:
    """The bytes in pieces, as a network may deliver them."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 0, 1, 2, 6))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if end > start]


def body(rng: Random, bases: Sequence[dict[str, Json]]) -> bytes:
    """The body of a request, usually JSON."""
    kind = rng.randrange(10)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    tree = cast("Json", rng.choice(bases))
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        tree = changed(rng, tree)
    data = json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode()
    for _ in range(rng.randrange(3) if kind < 4 else 0):
        data = worse(rng, data)
    return data


def events(rng: Random, base: Sequence[tuple[dict[str, Json], str]]) -> bytes:
    """A stream of server-sent events from chunks with their texts; usually it can be read."""
    if rng.randrange(40) == 0:
        return rng.randbytes(rng.randrange(400))
    rows: list[tuple[Json, str]] = list(base)
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        at = rng.randrange(len(rows) + 1)
        kind = rng.randrange(8)
        if kind == 0:
            rows.insert(at, _row(value(rng, 3)))
        elif at < len(rows):
            if kind == 1:
                del rows[at]
            elif kind == 2:
                rows.insert(at, rows[at])
            else:
                rows[at] = _row(changed(rng, rows[at][0]))
    end = rng.choice(("\n\n", "\n\n", "\n\n", "\r\n\r\n", "\r\r"))
    done = rng.choice(("[DONE]", "[DONE]", "[DONE]", "", "[DONE"))
    texts = [text for _, text in rows] + ([done] if done else [])
    data = "".join([f"data: {text}{end}" for text in texts]).encode()
    for _ in range(rng.randrange(3) if rng.random() < 0.3 else 0):
        data = worse(rng, data)
    return data


def _row(chunk: Json) -> tuple[Json, str]:
    return chunk, json.dumps(chunk, separators=(",", ":"))
