"""A model in this process as a backend: concurrent streams over one batched decoder.

The decoder and the tokenizer are behind small protocols, so that a package can supply its own.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from justenough.backends.noise import noise
from justenough.backends.protocol import Finish, Message, Request, limit_of
from justenough.errors import BackendUnavailable, InputError
from justenough.prompts import Prompts
from justenough.signal.entropy import Tail
from justenough.signal.signal import Signal
from justenough.trace import Token


class Sample(NamedTuple):
    """One generated token."""

    token_id: int
    logprob: float
    """Natural log-probability of this token."""
    top_logprobs: tuple[float, ...]
    """Natural log-probabilities of the most likely tokens, in descending order."""
    discarded: int = 0
    """Tokens that were generated to choose this one and then thrown away."""
    layers: int | None = None
    """Number of layers that ran, if tokens may exit early."""


@dataclass(slots=True, eq=False)
class Slot:
    """One row of the batch: the tokens in its cache and, if it is busy, the current generation."""

    row: int
    cached: list[int] = field(default_factory=list)
    """Token ids whose keys and values the row holds."""
    waiting: list[int] = field(default_factory=list)
    """Token ids that the next steps feed."""
    uniforms: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """Sampling noise in [0, 1) for each position, shape (T,); its length limits the generation."""
    generated: int = 0
    temperature: float = 1.0
    top_k: int = 20
    busy: bool = False
    held: bool = False
    """The row is paused: it generates nothing, but it is not free either."""


class Decoder(ABC):
    """Decodes several sequences at once; not thread-safe."""

    def __init__(self, *, rows: int, vocabulary: int, positions: int) -> None:
        """`vocabulary` is the number of token ids, `positions` the number of tokens that a row can hold."""
        self.vocabulary, self.positions = vocabulary, positions
        self.slots = [Slot(row) for row in range(rows)]

    @property
    def busy(self) -> int:
        """The number of rows that generate."""
        return sum(slot.busy for slot in self.slots)

    def admit(
        self,
        prompt: Sequence[int],
        *,
        uniforms: NDArray[np.float64],
        temperature: float,
        top_k: int,
        source: Slot | None = None,
    ) -> Slot | None:
        """Put a prompt of 1 to `positions` token ids into a free row; None if no row is free.

        The row with the longest common beginning is taken, so that only the rest is fed. If the row `source` holds more
        of the prompt, its cache is copied.
        """
        free = [slot for slot in self.slots if not slot.busy and not slot.held]
        if not free:
            return None
        slot = max(free, key=lambda slot: (_common(slot.cached, prompt), -len(slot.cached)))
        # The last token of the prompt is always fed, because its logits are needed.
        shared = min(_common(slot.cached, prompt), len(prompt) - 1)
        if source is not None and (longer := min(_common(source.cached, prompt), len(prompt) - 1)) > shared:
            self.copy(source, slot, slice(shared, longer))
            shared = longer
        slot.cached, slot.waiting = list(prompt[:shared]), list(prompt[shared:])
        slot.uniforms, slot.generated, slot.temperature, slot.top_k = uniforms, 0, temperature, top_k
        slot.busy = True
        return slot

    def hold(self, slot: Slot) -> None:
        """Pause a row before its last sample is fed."""
        slot.busy, slot.held = False, True

    def resume(self, slot: Slot, token_id: int) -> None:
        """Continue a paused row with this token instead of its last sample."""
        slot.busy, slot.held = True, False
        slot.waiting = [token_id]

    def release(self, slot: Slot) -> None:
        """Stop the generation in a row and free the row; its cache stays for a prompt with the same beginning."""
        slot.busy = slot.held = False
        slot.waiting = []

    def sampled(self, slots: Sequence[Slot], logits: NDArray[np.float64]) -> list[Sample]:
        """Draw the next token of each of some rows by its logits (B, V), and put it into the row's `waiting`."""
        temperatures = np.array([slot.temperature for slot in slots])[:, None]
        shifted = logits - logits.max(axis=1, keepdims=True)
        logprobs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        # The inverse of the cumulative distribution at the noise of this position; greedy at temperature 0.
        weights = np.exp(shifted / np.where(temperatures > 0, temperatures, 1.0)).cumsum(axis=1)
        draws = np.array([slot.uniforms[slot.generated] for slot in slots])[:, None]
        chosen = np.where(
            temperatures[:, 0] > 0, (weights <= draws * weights[:, -1:]).sum(axis=1), shifted.argmax(axis=1)
        )
        most = min(max(slot.top_k for slot in slots), logits.shape[1])
        # A whole sort of a large vocabulary takes longer than a small network.
        ranked = -np.sort(np.partition(-logprobs, most - 1, axis=1)[:, :most], axis=1)
        samples: list[Sample] = []
        for index, slot in enumerate(slots):
            token_id = min(int(chosen[index]), logits.shape[1] - 1)
            top = tuple(ranked[index, : slot.top_k].tolist())
            samples.append(Sample(token_id, float(logprobs[index, token_id]), top))
            slot.generated += 1
            slot.waiting.append(token_id)
        return samples

    @abstractmethod
    def copy(self, source: Slot, target: Slot, positions: slice) -> None:
        """Copy keys and values of some positions from one row to another."""

    @abstractmethod
    def step(self) -> list[tuple[Slot, Sample]]:
        """Feed one token to each busy row; return the samples of the rows that have read their prompt."""

    @abstractmethod
    def logits(self, slot: Slot) -> NDArray[np.float32]:
        """The logits (V,) that the last step computed for a row."""


def _common(cached: Sequence[int], prompt: Sequence[int]) -> int:
    """The length of the common beginning."""
    pairs = zip(cached, prompt, strict=False)
    return next((at for at, (left, right) in enumerate(pairs) if left != right), min(len(cached), len(prompt)))


class Tokenizer(Protocol):
    """Converts conversations to token ids, and token ids to text."""

    end: int
    """The id of the end-of-sequence token."""

    def texts(self) -> Callable[[int], str]:
        """A function that takes the ids of one sequence in turn and returns the text of each.

        A character of several tokens belongs to the token that completes it.
        """

    def conversation(self, messages: tuple[Message, ...], *, continue_final: bool) -> list[int]:
        """Token ids of a conversation, ready for an answer or, with `continue_final`, for a continuation."""


class BatchedModel(Protocol):
    """A model that a batched decoder can run."""

    name: str
    prompts: Prompts

    def read(self, problem: str) -> str:
        """The problem as the model reads it; raises `ProblemRefused` for a problem outside its language."""

    def tokenizer(self) -> Tokenizer:
        """Load the tokenizer."""

    def decoder(self, *, rows: int, threads: int) -> Decoder:
        """Load the decoder with this number of rows."""


class BatchedBackend:
    """Streams of one model, decoded together in a batch."""

    def __init__(self, model: BatchedModel, *, concurrency: int, threads: int = 1) -> None:
        self.model = model.name
        self.prompts: Prompts = model.prompts
        if concurrency < 1:
            raise InputError(f"concurrency is {concurrency}", hint="use at least 1")
        self.concurrency = concurrency
        self._source = model
        self._threads = threads
        self._streams: dict[Slot, asyncio.Queue[Sample | None]] = {}
        self._free = asyncio.Semaphore(concurrency)
        self._driver: asyncio.Task[None] | None = None

    @cached_property
    def engine(self) -> Decoder:
        """The decoder, loaded at the first use."""
        return self._source.decoder(rows=self.rows, threads=self._threads)

    @property
    def rows(self) -> int:
        """Rows of the decoder: one for each stream."""
        return self.concurrency

    @cached_property
    def tokens(self) -> Tokenizer:
        """The tokenizer, loaded at the first use."""
        return self._source.tokenizer()

    def signal(self, *, temperature: float, top_k: int) -> Signal:
        """Entropy of the logits before temperature, over the whole vocabulary if `top_k` covers it."""
        tail: Tail = "full" if top_k >= self.engine.vocabulary else "renormalise"
        return Signal(top_k=top_k, tail=tail, logits="raw", temperature=temperature)

    def read(self, problem: str) -> str:
        """The problem as the model reads it; raises `ProblemRefused` for a problem outside its language."""
        return self._source.read(problem)

    async def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
        """Generate for one request; closing the iterator frees the row at once."""
        prompt = self.tokens.conversation(request.messages, continue_final=request.continue_final)
        limit = limit_of(request, prompt=len(prompt), positions=self.engine.positions, model=self.model)
        slot, samples = await self._admit(prompt, request, limit)
        text = self.tokens.texts()
        try:
            count = spent = 0
            while spent < limit:
                sample = await samples.get()
                if sample is None:
                    raise BackendUnavailable(f"the decoder of {self.model} stopped", hint="see the error before")
                if sample.token_id == self.tokens.end:
                    yield Finish(reason="stop", tokens=count, prompt_tokens=len(prompt))
                    return
                count, spent = count + 1, spent + 1 + sample.discarded
                yield Token(
                    text=text(sample.token_id),
                    top_logprobs=sample.top_logprobs,
                    logprob=sample.logprob,
                    discarded=sample.discarded,
                    layers=sample.layers,
                )
            yield Finish(reason="length", tokens=count, prompt_tokens=len(prompt))
        finally:
            # A row that has ended was freed at that moment and may belong to another stream now.
            if self._streams.get(slot) is samples:
                self._release(slot)

    async def close(self) -> None:
        """Stop decoding."""
        if self._driver is not None:
            self._driver.cancel()
            await asyncio.gather(self._driver, return_exceptions=True)
            self._driver = None

    def _release(self, slot: Slot) -> None:
        """Free a row for a stream that waits."""
        del self._streams[slot]
        self.engine.release(slot)
        self._free.release()

    async def _admit(
        self, prompt: list[int], request: Request, limit: int
    ) -> tuple[Slot, asyncio.Queue[Sample | None]]:
        await self._free.acquire()
        uniforms = noise(request.seed, *request.key, limit)
        slot = self.engine.admit(prompt, uniforms=uniforms, temperature=request.temperature, top_k=request.top_k)
        if slot is None:
            raise RuntimeError("the decoder has fewer rows than streams")
        samples = self._streams[slot] = asyncio.Queue[Sample | None]()
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        return slot, samples

    def _receive(self, slot: Slot, sample: Sample) -> None:
        """Handle the sample of a row: pass it on, and free the row if this was its last token."""
        self._streams[slot].put_nowait(sample)
        # The row ends here even if its reader is busy elsewhere.
        if sample.token_id == self.tokens.end or slot.generated == len(slot.uniforms):
            self._release(slot)

    async def _drive(self) -> None:
        """Step the decoder while a row is busy; the readers run between two steps."""
        try:
            while self.engine.busy:
                for slot, sample in self.engine.step():
                    self._receive(slot, sample)
                await asyncio.sleep(0)
        finally:
            for queue in self._streams.values():
                queue.put_nowait(None)
