"""Open a backend from a model SPEC. Built-in and third-party backends are entry points of one group."""

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
    """Options of a backend."""

    base_url: str | None = None
    concurrency: int | None = None
    prompts: str | None = None
    """The name of a notation; None: chosen by the model."""
    thought: str | None = None
    """The name of a format of thoughts, or `until:CUE`; None: the notation's."""
    threads: int = 1
    exits: str | None = None
    """The folder of layer exits, for `hf`."""
    leave: str | None = None
    """When a token exits: `MEASURE[@NUMBER]`; None: as certified."""
    dtype: str = "float32"
    device: str = "cpu"


def split_number(spec: str) -> tuple[str, float | None]:
    """Split `NAME[@NUMBER]` at the last `@`; raises `InputError` if NUMBER is not a number."""
    name, at, number = spec.rpartition("@")
    try:
        return (name, float(number)) if at else (spec, None)
    except ValueError as error:
        raise InputError(f"the threshold {number!r} is not a number", hint=f"such as {name}@0.5") from error


Opener = Callable[[str, Options], Backend]
"""Takes the part of a SPEC after the colon."""


def open_backend(
    spec: str,
    *,
    base_url: str | None = None,
    concurrency: int | None = None,
    prompts: str | None = None,
    thought: str | None = None,
    threads: int = 1,
    exits: str | None = None,
    leave: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
) -> Backend:
    """Open the backend `NAME[:MODEL]`, for example `openai:MODEL`, `llamacpp:PATH.gguf` or `embedded`.

    `base_url` is the server's address, `concurrency` the number of streams that are open at a time, `prompts` the name
    of a set of prompts (by default the model's own), `thought` how the model marks its thought (`think`, `harmony`,
    `until:Answer:`, …; by default as the prompts say), `threads` the number of CPU threads. `exits`, `leave`, `dtype`
    and `device` are for models in Hugging Face form: the folder of layer exits, when a token exits, the precision and
    the device of torch. Close the backend after use. Raises `InputError` for an unknown name and `MissingExtra` if a
    dependency is not installed.
    """
    name, _, model = spec.partition(":")
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise InputError(
            f"unknown model {spec!r}", hint=f"use one of {', '.join(f'{key}[:…]' for key in sorted(points))}"
        )
    if name != "hf" and (exits is not None or leave is not None):
        raise InputError(f"{spec} has no layer exits", hint="exits are for --model hf:PATH")
    if exits is None and leave is not None:
        raise InputError(f"leave is {leave!r}, but there are no exits", hint="--exits DIR")
    opener: Opener = points[name].load()
    options = Options(
        base_url=base_url,
        concurrency=concurrency,
        prompts=prompts,
        thought=thought,
        threads=threads,
        exits=exits,
        leave=leave,
        dtype=dtype,
        device=device,
    )
    return opener(model, options)
