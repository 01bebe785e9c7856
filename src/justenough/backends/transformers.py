"""`hf:PATH`: a checkpoint in Hugging Face form, decoded here by transformers, one token at a time.

For models that no server at hand serves, and as a reference: entropies of the raw logits, noise keyed by (seed,
problem, step, position). Only files on this machine are read, and no code that comes with a checkpoint is run.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from justenough.backends.noise import noise
from justenough.backends.protocol import Finish, Request
from justenough.backends.registry import Options
from justenough.errors import InputError, MissingExtra
from justenough.prompts import PROMPTS, Prompts
from justenough.signal.signal import Signal
from justenough.toy.families import parse
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
    """What the network says at one position."""

    logprobs: torch.Tensor
    """Natural log-probabilities of the next token, shape (V,), in double precision."""
    state: object
    """The cache, for the next call."""
    layers: int | None = None
    """Layers run, where the network may be left early."""


class TransformersBackend:
    """A causal language model with a chat template, in this process."""

    concurrency = 1

    def __init__(self, path: Path, *, prompts: str | None = None, threads: int | None = None) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MissingExtra("transformers", extra="hf") from error
        if not (path / "config.json").is_file():
            raise InputError(f"{path} is no checkpoint in Hugging Face form", hint="a folder with config.json")
        transformers.utils.logging.disable_progress_bar()
        try:
            self._tokenizer: _Tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
            self._network = transformers.AutoModelForCausalLM.from_pretrained(
                path, local_files_only=True, dtype=torch.float32
            ).eval()
        except (OSError, ValueError) as error:
            raise InputError(f"transformers cannot load {path}: {error}", hint="is the checkpoint whole?") from error
        if threads is not None:
            torch.set_num_threads(threads)
        self.model = f"justenough-{path.name}" if _is_ours(path) else path.name
        name = prompts or ("embedded" if _is_ours(path) else "general")
        if name not in PROMPTS:
            raise InputError(f"no prompts {name!r}", hint=f"one of {', '.join(PROMPTS)}")
        self.prompts: Prompts = PROMPTS[name]
        self.positions = int(getattr(self._network.config, "max_position_embeddings", sys.maxsize))
        self._turn = asyncio.Lock()

    def signal(self, *, temperature: float, top_k: int) -> Signal:
        """Entropy of the logits before temperature."""
        whole = top_k >= int(self._network.config.vocab_size)
        return Signal(top_k=top_k, tail="full" if whole else "renormalise", logits="raw", temperature=temperature)

    def read(self, problem: str) -> str:
        """The problem as given; in its own notation for the embedded model."""
        return parse(problem).text if self.prompts.name == "embedded" else problem

    async def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
        """Generate for one request; closing the iterator stops at once, since tokens are made one by one."""
        ids = self._prompt(request)
        room = self.positions - len(ids)
        if room <= 0:
            raise InputError(
                f"the conversation has {len(ids)} tokens, {self.model} holds {self.positions}", hint="take fewer steps"
            )
        limit = min(request.max_tokens, room)
        uniforms = noise(request.seed, *request.key, limit)
        state: object = None
        feed = ids
        said: list[int] = []
        shown = ""
        try:
            for place in range(limit):
                predicted, state, layers = await self._position(feed, state)
                row = predicted.numpy()
                chosen = _draw(row, float(uniforms[place]), request.temperature)
                if chosen == self._tokenizer.eos_token_id:
                    yield Finish(reason="stop", tokens=place, prompt_tokens=len(ids))
                    return
                said.append(chosen)
                whole = self._tokenizer.decode(said)
                # A character whose bytes are not all there yet comes with the token that completes it.
                text = "" if whole.endswith(_REPLACEMENT) else whole[len(shown) :]
                shown += text
                top = (-np.sort(-row))[: request.top_k].tolist()
                yield Token(text=text, top_logprobs=tuple(top), logprob=float(row[chosen]), layers=layers)
                feed = [chosen]
            yield Finish(reason="length", tokens=limit, prompt_tokens=len(ids))
        finally:
            self._let_go(state)

    async def close(self) -> None:
        """Nothing is held but memory."""

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
        """What is predicted after some token ids, given the cache of those before."""
        # One position at a time, not one stream: a thought stays open while its answer is elicited.
        async with self._turn:
            return await asyncio.to_thread(self._forward, feed, state)

    def _let_go(self, state: object) -> None:
        """A stream has ended; its cache is garbage."""

    def _forward(self, feed: list[int], state: object) -> Position:
        import torch

        with torch.no_grad():
            out = self._network(torch.tensor([feed]), past_key_values=state, use_cache=True)
            row = torch.log_softmax(out.logits[0, -1].double(), dim=-1)
        return Position(row, out.past_key_values)


def _draw(row: NDArray[np.float64], uniform: float, temperature: float) -> int:
    """The token at a number in [0, 1) by the inverse of the cumulative distribution; greedy at temperature 0."""
    if temperature <= 0:
        return int(row.argmax())
    weights = np.exp((row - row.max()) / temperature).cumsum()
    return min(int((weights <= uniform * weights[-1]).sum()), len(row) - 1)


def _is_ours(path: Path) -> bool:
    """Whether the checkpoint is of the embedded model, by its chat template."""
    template = path / "chat_template.jinja"
    return template.is_file() and "<|user|>" in template.read_text(encoding="utf-8") and path.name in _OURS


_OURS = ("embedded", "overconfident", "repaired")


def open_transformers(model: str, options: Options) -> TransformersBackend:
    """`hf:PATH`."""
    if not model:
        raise InputError("hf needs a folder", hint="--model hf:models/embedded")
    return TransformersBackend(Path(model), prompts=options.prompts, threads=options.threads)
