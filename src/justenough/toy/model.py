"""The embedded models by name: their files, decoder and tokenizer."""

from __future__ import annotations

from justenough.backends.batched import Decoder, Tokenizer
from justenough.errors import InputError
from justenough.prompts import Prompts
from justenough.toy.engine import Engine
from justenough.toy.notation import MODELS, NOTATION
from justenough.toy.tokens import Tokens, packaged


class EmbeddedModel:
    """One of the small models that ship with the library, for a batched decoder."""

    prompts: Prompts = NOTATION.prompts

    def __init__(self, name: str) -> None:
        if name not in MODELS:
            raise InputError(f"there is no embedded model {name!r}", hint=f"use one of {', '.join(MODELS)}")
        self.name = f"justenough-{name}"
        self._file = f"{name}.onnx"

    def read(self, problem: str) -> str:
        """The problem in the model's notation; raises `ProblemRefused` for a problem outside its language."""
        return NOTATION.read(problem)

    def tokenizer(self) -> Tokenizer:
        """Load the tokenizer."""
        return Tokens()

    def decoder(self, *, rows: int, threads: int) -> Decoder:
        """Load the decoder with this number of rows."""
        return Engine(packaged(self._file), width=rows, threads=threads)
