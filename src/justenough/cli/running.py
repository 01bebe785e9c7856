"""What the options of a run describe: its settings and its models."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from justenough.cli.arguments import DEVICE, DTYPE
from justenough.cli.terminal import say
from justenough.errors import InputError

if TYPE_CHECKING:
    from justenough.backends.protocol import Backend
    from justenough.runner import RunSettings

STEPS: Final = 4
"""Sequential steps of a problem."""
_WHOLE: Final = 10_000
"""More steps than a streamed thought has."""
_LOCAL: Final = ("embedded", "adadec", "calm", "deebert", "hf", "llamacpp", "replay")
"""Models that run in this process."""
_UNLOADED: Final = ("embedded", "llamacpp", "openai", "replay")
"""Models that torch does not load."""


def run_settings(options: argparse.Namespace, *, steps: int | None) -> RunSettings:
    """The run settings of the arguments; `steps` None: four sequential steps, or the whole thought."""
    from justenough.runner import RunSettings, branching_named

    if options.branching is not None and options.extend != "branch":
        raise InputError("--branching is for branches", hint="--extend branch")
    branches = options.extend == "branch" and options.shape == "sequential"
    embedded = options.model.partition(":")[0] in ("embedded", "adadec")
    temperature, max_tokens = (0.8, 512) if embedded else (0.6, 4096)
    return RunSettings(
        shape=options.shape,
        extend=options.extend if options.shape == "sequential" else "refine",
        max_steps=(STEPS if options.shape == "sequential" else _WHOLE) if steps is None else steps,
        max_tokens=max_tokens if options.max_tokens is None else options.max_tokens,
        temperature=temperature if options.temperature is None else options.temperature,
        top_k=options.top_k,
        seed=options.seed,
        splitter=options.splitter,
        branching=branching_named(options.branching or "eager") if branches else None,
    )


def check_run(options: argparse.Namespace, *, model: str, steps: int | None) -> None:
    """Raise `InputError` for a value of `add_run` that would be refused only after the model was asked."""
    from justenough.grading import open_grader
    from justenough.signal.steps import splitter
    from justenough.signal.thought import thought_format

    # The shape may still be open; with a stream, no value is left out.
    asked = {"model": model, "shape": options.shape or "streaming"}
    run_settings(argparse.Namespace(**vars(options) | asked), steps=steps)
    if options.splitter is not None:
        splitter(options.splitter)
    if options.thought is not None:
        thought_format(options.thought)
    open_grader(options.grader).close()


@asynccontextmanager
async def backends(options: argparse.Namespace) -> AsyncIterator[tuple[Backend, Backend | None]]:
    """Open the model, and the stronger model of a cascade; the end of the block closes both."""
    from justenough.backends.notation import notation_for
    from justenough.backends.registry import open_backend
    from justenough.signal.thought import thought_format

    specs = [spec for spec in (options.model, options.cascade) if spec]
    if options.base_url is not None and all(spec.partition(":")[0] in _LOCAL for spec in specs):
        raise InputError(f"{options.model} is not behind a server", hint="leave --base-url out, or --model openai:NAME")
    if (options.dtype, options.device) != (DTYPE, DEVICE) and not any(map(_is_loaded_by_torch, specs)):
        hint = "leave --dtype and --device out, or --model hf:PATH"
        raise InputError(f"{options.model} is no model in Hugging Face form", hint=hint)
    async with AsyncExitStack() as stack:

        def opened(spec: str) -> Backend:
            backend = open_backend(
                spec,
                base_url=options.base_url,
                concurrency=options.concurrency,
                prompts=options.prompts,
                thought=options.thought,
                exits=None if options.exits is None else str(options.exits),
                leave=options.leave,
                dtype=options.dtype,
                device=options.device,
            )
            stack.push_async_callback(backend.close)
            if options.thought is not None and backend.prompts.thought != thought_format(options.thought):
                raise InputError(f"{spec} has its own format of thoughts", hint="leave --thought out")
            if options.prompts is not None and spec == options.model:
                notation = notation_for(backend.model, prompts=options.prompts, thought=options.thought)
                if backend.prompts != notation.prompts:
                    raise InputError(f"{spec} has its own prompts", hint="leave --prompts out")
            return backend

        yield opened(options.model), opened(options.cascade) if options.cascade else None


def _is_loaded_by_torch(spec: str) -> bool:
    """Whether `--dtype` and `--device` mean something for this model; a plug-in may use them too."""
    kind, _, rest = spec.partition(":")
    return rest.startswith("hf:") if kind == "adadec" else kind not in _UNLOADED


def warn_of_idle(options: argparse.Namespace) -> None:
    """Name the options of a run that do nothing in its shape, once the shape is known."""
    if options.shape == "sequential" and options.splitter is not None:
        say("warning: --splitter does nothing: each step of a sequential run is a whole completion (--shape streaming)")
    if options.shape == "streaming" and options.extend != "refine":
        say("warning: --extend does nothing: a step of a streaming run is a part of one thought (--shape sequential)")
