"""`llamacpp:PATH.gguf`: the server of llama.cpp (wheel `xllamacpp`) in this process, on a free loopback port.

Tokens are sampled from the whole distribution at the temperature of the request; the truncating samplers of the server
are switched off. With one stream at a time (the default), the same seed gives the same text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import httpx

from justenough.backends.notation import model_name
from justenough.backends.openai import OpenAIBackend
from justenough.backends.registry import Options
from justenough.errors import BackendUnavailable, InputError, MissingExtra

_START_S: Final = 30.0
"""Seconds within which the loop of the server must run."""


class GgufHeader(NamedTuple):
    """What a GGUF file says about its model."""

    name: str | None
    """`general.name`."""
    context: int | None
    """Tokens of context that the model was trained with."""
    has_template: bool
    """Whether the file has a chat template; files of base models have none."""


class LlamaCppBackend(OpenAIBackend):
    """A GGUF file behind the server of llama.cpp, used like any OpenAI-compatible server."""

    def __init__(
        self,
        path: Path,
        *,
        concurrency: int = 1,
        threads: int = 1,
        prompts: str | None = None,
        thought: str | None = None,
    ) -> None:
        try:
            import gguf  # noqa: F401
            import xllamacpp
        except ImportError as error:
            raise MissingExtra(error.name or "xllamacpp", extra="llamacpp") from error
        header = read_header(path)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.hostnames, params.port = ["127.0.0.1"], 0
        params.n_parallel = concurrency
        # The streams share the context; with 0 each stream would get only a part of the context of the model.
        params.n_ctx = (header.context or 0) * concurrency
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.n_threads_http = concurrency + 2
        params.sampling.top_k, params.sampling.top_p, params.sampling.min_p = 0, 1.0, 0.0
        params.endpoint_metrics = params.endpoint_slots = True
        params.warmup = False
        params.verbosity = -1
        try:
            self._running: object = xllamacpp.Server(params)
        except RuntimeError as error:
            raise BackendUnavailable(
                f"llama.cpp does not load {path}: {error}",
                hint="is the format too new, or the file too large for the memory?",
            ) from error
        self.base_url = str(self._running.listening_address)
        _await_loop(self.base_url)
        super().__init__(
            model_name(path, title=header.name),
            base_url=self.base_url,
            concurrency=concurrency,
            prompts=prompts,
            thought=thought,
            server="llamacpp",
        )

    async def close(self) -> None:
        """Close the connections and stop the server."""
        await super().close()
        self._running = None


def open_llamacpp(model: str, options: Options) -> LlamaCppBackend:
    """`llamacpp:PATH.gguf`; raises `InputError` for a base URL, because the server runs in this process."""
    if not model:
        raise InputError("llamacpp needs a file", hint="--model llamacpp:PATH.gguf")
    if options.base_url is not None:
        raise InputError(
            "llamacpp starts its own server and takes no base URL", hint="use --model openai:MODEL for a running server"
        )
    return LlamaCppBackend(
        Path(model),
        concurrency=options.concurrency or 1,
        threads=options.threads,
        prompts=options.prompts,
        thought=options.thought,
    )


def _await_loop(base_url: str) -> None:
    """Wait until the loop of the server runs; `/slots` is answered inside that loop, `/health` is not.

    A server that is stopped before its loop runs waits for the loop forever.
    """
    try:
        httpx.get(f"{base_url}/slots", timeout=_START_S, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        raise BackendUnavailable(f"the server of llama.cpp does not answer: {error}", hint="try again") from error


def read_header(path: Path) -> GgufHeader:
    """What a GGUF file says about its model; raises `InputError` for any other file, or a part of one."""
    import gguf

    try:
        fields = gguf.GGUFReader(path).fields
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint="use the path of a GGUF file") from error
    except (ValueError, IndexError) as error:
        raise InputError(f"{path} is not a complete GGUF file: {error}", hint="is the download complete?") from error
    name = fields["general.name"].contents() if "general.name" in fields else None
    contexts = [field.contents() for key, field in fields.items() if key.endswith(".context_length")]
    return GgufHeader(name, contexts[0] if contexts else None, "tokenizer.chat_template" in fields)
