"""`adadec[:NAME[@BITS]]`: a model that is decoded by AdaDec, with the threshold that was learned for it.

NAME is an embedded model, or `hf:PATH`.
"""

from __future__ import annotations

import json
from pathlib import Path

from justenough.backends.adadec import AdaDecBackend
from justenough.backends.look_ahead import open_look_ahead
from justenough.backends.registry import Options, split_number
from justenough.toy.backend import EmbeddedModel
from justenough.toy.tokens import packaged


def learned_file(name: str) -> str:
    """The file with the learned threshold of an embedded model; it is beside the weights."""
    return f"{name}.adadec.json"


def learned_threshold(name: str) -> float:
    """The threshold in bits that `python -m training.adadec` learned for an embedded model."""
    return float(json.loads(packaged(learned_file(name)).read_text(encoding="utf-8"))["threshold"])


def embedded_adadec(
    name: str = "embedded", *, threshold: float | None = None, concurrency: int = 8, threads: int = 1
) -> AdaDecBackend:
    """AdaDec on an embedded model; without `threshold`, with the learned one."""
    model = EmbeddedModel(name)
    bits = learned_threshold(name) if threshold is None else threshold
    return AdaDecBackend(model, threshold=bits, concurrency=concurrency, threads=threads)


def open_adadec(model: str, options: Options) -> AdaDecBackend:
    """`adadec[:NAME[@BITS]]` or `adadec:hf:PATH[@BITS]`; without BITS, the learned threshold."""
    name, threshold = split_number(model)
    if name.startswith("hf:"):
        return open_look_ahead(Path(name.removeprefix("hf:")), threshold, options)
    return embedded_adadec(
        name or "embedded", threshold=threshold, concurrency=options.concurrency or 8, threads=options.threads
    )
