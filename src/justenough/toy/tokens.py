"""Tokenizer and chat template of the embedded model, from the same files that inference engines read.

The merges of its byte-level BPE never cross a word boundary, so it needs no pre-tokenizer and not the `tokenizers`
library (40 MB with its dependencies). A test checks that both give the same ids.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Final

from jinja2.sandbox import ImmutableSandboxedEnvironment

from justenough.backends.protocol import Message
from justenough.errors import InputError

END: Final = "<|end|>"


class Tokens:
    """Converts conversations to token ids, and token ids to bytes."""

    def __init__(self) -> None:
        model = json.loads(packaged("tokenizer.json").read_text(encoding="utf-8"))
        template = packaged("chat_template.jinja").read_text(encoding="utf-8")
        self._template = ImmutableSandboxedEnvironment().from_string(template)
        self._symbols = _byte_symbols()
        bytes_of = {symbol: byte for byte, symbol in enumerate(self._symbols)}
        added = {entry["content"]: entry["id"] for entry in model["added_tokens"]}
        self._ids: dict[str, int] = model["model"]["vocab"] | added
        self._added = re.compile("|".join(re.escape(token) for token in sorted(added, key=len, reverse=True)))
        self._ranks = {tuple(pair): rank for rank, pair in enumerate(model["model"]["merges"])}
        ordered = sorted(self._ids, key=self._ids.__getitem__)
        self.bytes: Sequence[bytes] = tuple(
            token.encode() if token in added else bytes(bytes_of[symbol] for symbol in token) for token in ordered
        )
        self.end = self._ids[END]

    def texts(self) -> Callable[[int], str]:
        """A function that takes the ids of one sequence in turn and returns the text of each."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda token_id: decoder.decode(self.bytes[token_id])

    def conversation(self, messages: tuple[Message, ...], *, continue_final: bool) -> list[int]:
        """Token ids of a conversation, ready for an answer or, with `continue_final`, for a continuation."""
        rows = [{"role": message.role, "content": message.content} for message in messages]
        text = self._template.render(messages=rows, add_generation_prompt=not continue_final)
        return self.encode(text.removesuffix(END) if continue_final else text)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ids: list[int] = []
        begin = 0
        for match in self._added.finditer(text):
            ids += self._pieces(text[begin : match.start()])
            ids.append(self._ids[match[0]])
            begin = match.end()
        return ids + self._pieces(text[begin:])

    def _pieces(self, text: str) -> list[int]:
        """Byte-level BPE: merge the pair of the lowest rank first, from the left."""
        parts = [self._symbols[byte] for byte in text.encode()]
        while True:
            ranked = [(self._ranks[pair], place) for place, pair in enumerate(pairwise(parts)) if pair in self._ranks]
            if not ranked:
                return [self._ids[part] for part in parts]
            place = min(ranked)[1]
            parts[place : place + 2] = [parts[place] + parts[place + 1]]


def _byte_symbols() -> list[str]:
    """The printable symbol of each byte in byte-level BPE (the table of GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(shifted)) for byte in range(256)]


def packaged(name: str) -> Path:
    """The path of a file in the package; installed wheels are unpacked."""
    path = Path(str(resources.files("justenough.toy"))) / "models" / name
    if not path.exists():
        raise InputError(f"{name} is not installed", hint="reinstall justenough, or run `make train` in a clone")
    return path
