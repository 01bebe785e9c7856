"""From a model SPEC to a backend; built-ins and third parties enter by the same door, an entry point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Final

from justenough.backends.protocol import Backend
from justenough.errors import InputError

GROUP: Final = "justenough.backends"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a backend may be told beside its model."""

    base_url: str | None = None
    concurrency: int | None = None
    prompts: str | None = None
    """A name in `PROMPTS`; None chooses by the model."""
    threads: int = 1


Opener = Callable[[str, Options], Backend]
"""Takes what stands behind the colon of a SPEC."""


def open_backend(
    spec: str,
    *,
    base_url: str | None = None,
    concurrency: int | None = None,
    prompts: str | None = None,
    threads: int = 1,
) -> Backend:
    """Open the backend `NAME[:MODEL]`, for example `openai:MODEL`, `llamacpp:PATH.gguf` or `embedded`.

    `base_url` is the server's address, `concurrency` the number of streams that are open at a time, `prompts` the name
    of a set of prompts (by default the model's own), `threads` the number of CPU threads. Close the backend after use.
    Raises `InputError` for an unknown name and `MissingExtra` if a dependency is not installed.
    """
    name, _, model = spec.partition(":")
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        raise InputError(
            f"unknown model {spec!r}", hint=f"one of {', '.join(f'{known}[:…]' for known in sorted(found))}"
        )
    opener: Opener = found[name].load()
    options = Options(base_url=base_url, concurrency=concurrency, prompts=prompts, threads=threads)
    return opener(model, options)
