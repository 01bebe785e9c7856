"""`hf:PATH`: a checkpoint in Hugging Face form, decoded by transformers in this process, one token at a time.

For models without a server, and as a reference: entropies of the raw logits, and noise that depends only on (seed,
problem, step, position). It reads only local files and runs no code from the checkpoint.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from justenough.backends.noise import noise
from justenough.backends.notation import model_name, notation_for
from justenough.backends.protocol import Finish, Request, limit_of
from justenough.backends.registry import Options
from justenough.errors import InputError, MissingExtra
from justenough.prompts import Prompts
from justenough.signal.entropy import Tail
from justenough.signal.signal import Signal
from justenough.trace import Token

if TYPE_CHECKING:
    import torch

_REPLACEMENT = "�"


class _Tokenizer(Protocol):
    eos_token_id: int | None

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: object) -> str: ...

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]: ...

    def decode(self, ids: list[int]) -> str: ...


class Position(NamedTuple):
    """The prediction of the network at one position."""

    logprobs: torch.Tensor
    """Natural log-probabilities of the next token, shape (V,), in double precision."""
    state: object
    """The cache, for the next call."""
    layers: int | None = None
    """Number of layers that ran, if tokens may exit early."""


class TransformersBackend:
    """A causal language model with a chat template, in this process."""

    concurrency = 1

    def __init__(
        self, path: Path, *, prompts: str | None = None, thought: str | None = None, threads: int | None = None
    ) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MissingExtra("transformers", extra="hf") from error
        if not (path / "config.json").is_file():
            raise InputError(f"{path} is not a checkpoint in Hugging Face form", hint="use a folder with config.json")
        transformers.utils.logging.disable_progress_bar()
        try:
            self._tokenizer: _Tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
            self._network = transformers.AutoModelForCausalLM.from_pretrained(
                path, local_files_only=True, dtype=torch.float32
            ).eval()
        except (OSError, ValueError) as error:
            raise InputError(f"transformers cannot load {path}: {error}", hint="is the checkpoint complete?") from error
        if threads is not None:
            torch.set_num_threads(threads)
        self.model = model_name(path)
        self._notation = notation_for(self.model, prompts=prompts, thought=thought)
        self.prompts: Prompts = self._notation.prompts
        self.positions = int(getattr(self._network.config, "max_position_embeddings", sys.maxsize))
        self._turn = asyncio.Lock()

    def signal(self, *, temperature: float, top_k: int) -> Signal:
        """Entropy of the logits before temperature."""
        tail: Tail = "full" if top_k >= int(self._network.config.vocab_size) else "renormalise"
        return Signal(top_k=top_k, tail=tail, logits="raw", temperature=temperature)

    def read(self, problem: str) -> str:
        """The problem in the model's notation; raises `ProblemRefused` for a problem outside its language."""
        return self._notation.read(problem)

    async def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
        """Generate for one request, token by token; closing the iterator stops at once."""
        ids = self._prompt(request)
        limit = limit_of(request, prompt=len(ids), positions=self.positions, model=self.model)
        uniforms = noise(request.seed, *request.key, limit)
        state: object = None
        feed = ids
        generated: list[int] = []
        length = 0
        try:
            for place in range(limit):
                predicted, state, layers = await self._position(feed, state)
                row = predicted.numpy()
                chosen = _draw(row, float(uniforms[place]), request.temperature)
                if chosen == self._tokenizer.eos_token_id:
                    yield Finish(reason="stop", tokens=place, prompt_tokens=len(ids))
                    return
                generated.append(chosen)
                answer = self._tokenizer.decode(generated)
                # A character of several tokens belongs to the token that completes it.
                text = "" if answer.endswith(_REPLACEMENT) else answer[length:]
                length += len(text)
                top = (-np.sort(-row))[: request.top_k].tolist()
                yield Token(text=text, top_logprobs=tuple(top), logprob=float(row[chosen]), layers=layers)
                feed = [chosen]
            yield Finish(reason="length", tokens=limit, prompt_tokens=len(ids))
        finally:
            self._free_state(state)

    async def close(self) -> None:
        """Do nothing: only memory is in use."""

    def _prompt(self, request: Request) -> list[int]:
        turns = [{"role": message.role, "content": message.content} for message in request.messages]
        text = self._tokenizer.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=not request.continue_final,
            continue_final_message=request.continue_final,
        )
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    async def _position(self, feed: list[int], state: object) -> Position:
        """The prediction after some token ids, given the cache of the ids before them."""
        # The lock covers one position, not one stream: a thought stays open while its answer is elicited.
        async with self._turn:
            return await asyncio.to_thread(self._forward, feed, state)

    def _free_state(self, state: object) -> None:
        """Free the cache of a stream that has ended."""

    def _forward(self, feed: list[int], state: object) -> Position:
        import torch

        with torch.no_grad():
            out = self._network(torch.tensor([feed]), past_key_values=state, use_cache=True)
            row = torch.log_softmax(out.logits[0, -1].double(), dim=-1)
        return Position(row, out.past_key_values)


def texts(tokenizer: Any) -> Callable[[int], str]:
    """A function that takes the ids of one sequence in turn and returns the text of each.

    A character of several tokens belongs to the token that completes it. Raises `InputError` for a tokenizer that is
    not one of the `tokenizers` library.
    """
    from tokenizers.decoders import DecodeStream

    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        raise InputError(f"{type(tokenizer).__name__} cannot decode token by token", hint="use a fast tokenizer")
    stream = DecodeStream(skip_special_tokens=False)
    return lambda token_id: stream.step(inner, token_id) or ""


def _draw(row: NDArray[np.float64], uniform: float, temperature: float) -> int:
    """Sample a token: the inverse of the cumulative distribution at `uniform` in [0, 1); greedy at temperature 0."""
    if temperature <= 0:
        return int(row.argmax())
    weights = np.exp((row - row.max()) / temperature).cumsum()
    return min(int((weights <= uniform * weights[-1]).sum()), len(row) - 1)


def open_transformers(model: str, options: Options) -> TransformersBackend:
    """`hf:PATH`."""
    if not model:
        raise InputError("hf needs a folder", hint="--model hf:FOLDER")
    return TransformersBackend(Path(model), prompts=options.prompts, thought=options.thought, threads=options.threads)
