"""The embedded model as a backend: no network and no other process."""

from __future__ import annotations

from pathlib import Path

from justenough.backends.batched import BatchedBackend
from justenough.backends.registry import Options
from justenough.toy.model import EmbeddedModel
from justenough.toy.tokens import packaged


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
