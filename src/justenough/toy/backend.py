"""The embedded models by name, and as backends: no network and no other process."""

from __future__ import annotations

from pathlib import Path

from justenough.backends.batched import BatchedBackend, Decoder, Tokenizer
from justenough.backends.registry import Options
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


class EmbeddedBackend(BatchedBackend):
    """A small reasoning model for integer arithmetic.

    Streams are decoded together in a batch of `concurrency` rows. Each stream has exactly the bits that it would have
    alone.
    """

    def __init__(self, name: str = "embedded", *, concurrency: int = 32, threads: int = 1) -> None:
        super().__init__(EmbeddedModel(name), concurrency=concurrency, threads=threads)


def open_embedded(model: str, options: Options) -> EmbeddedBackend:
    """`embedded[:NAME]`; of the options only `threads` applies to a model in this process."""
    return EmbeddedBackend(model or "embedded", threads=options.threads)


def shipped_calibration() -> Path:
    """The calibration of the default model; the training run made it on the calibration split."""
    return packaged("embedded.calibration.json")
