"""The embedded model as a backend: concurrent streams over one batched decoder."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator
from functools import cached_property
from pathlib import Path
from typing import Final

from justenough.backends.noise import noise
from justenough.backends.protocol import Finish, Request
from justenough.backends.registry import Options
from justenough.errors import BackendUnavailable, InputError
from justenough.prompts import PROMPTS, Prompts
from justenough.signal.signal import Signal
from justenough.toy.engine import Engine, Sample, Slot
from justenough.toy.families import parse
from justenough.toy.tokens import Tokens, packaged
from justenough.trace import Token

MODELS: Final = ("embedded", "overconfident", "repaired")


class EmbeddedBackend:
    """A small reasoning model for integer arithmetic, shipped with the library; no network, no other process.

    Streams are decoded together in a batch of `concurrency` rows; each is bit for bit what it would be alone.
    """

    prompts: Prompts = PROMPTS["embedded"]

    def __init__(self, name: str = "embedded", *, concurrency: int = 32, threads: int = 1) -> None:
        if name not in MODELS:
            raise InputError(f"no embedded model {name!r}", hint=f"one of {', '.join(MODELS)}")
        self.model = f"justenough-{name}"
        self.concurrency = concurrency
        self._name = name
        self._threads = threads
        self._streams: dict[Slot, asyncio.Queue[Sample | None]] = {}
        self._free = asyncio.Condition()
        self._driver: asyncio.Task[None] | None = None

    @cached_property
    def engine(self) -> Engine:
        """The decoder, loaded at first use."""
        return Engine(packaged(f"{self._name}.onnx"), width=self.rows, threads=self._threads)

    @property
    def rows(self) -> int:
        """Rows of the decoder: one a stream."""
        return self.concurrency

    @cached_property
    def _tokens(self) -> Tokens:
        return Tokens()

    def signal(self, *, temperature: float, top_k: int) -> Signal:
        """Entropy of the logits before temperature; the whole vocabulary where `top_k` covers it."""
        whole = top_k >= self.engine.vocabulary
        return Signal(top_k=top_k, tail="full" if whole else "renormalise", logits="raw", temperature=temperature)

    def read(self, problem: str) -> str:
        """The problem in the model's own notation; raises `ProblemRefused` outside its language."""
        return parse(problem).text

    async def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
        """Generate for one request; closing the iterator frees the row at once."""
        prompt = self._tokens.conversation(request.messages, continue_final=request.continue_final)
        room = self.engine.positions - len(prompt)
        if room <= 0:
            raise InputError(
                f"the conversation has {len(prompt)} tokens, the embedded model holds {self.engine.positions}",
                hint="take fewer steps",
            )
        limit = min(request.max_tokens, room)
        slot, arrived = await self._admit(prompt, request, limit)
        text = codecs.getincrementaldecoder("utf-8")("replace")
        try:
            count = spent = 0
            while spent < limit:
                sample = await arrived.get()
                if sample is None:
                    raise BackendUnavailable("the embedded model's decoder stopped", hint="see the error before")
                if sample.token_id == self._tokens.end:
                    yield Finish(reason="stop", tokens=count, prompt_tokens=len(prompt))
                    return
                count, spent = count + 1, spent + 1 + sample.discarded
                yield Token(
                    text=text.decode(self._tokens.bytes[sample.token_id]),
                    top_logprobs=sample.top_logprobs,
                    logprob=sample.logprob,
                    discarded=sample.discarded,
                )
            yield Finish(reason="length", tokens=count, prompt_tokens=len(prompt))
        finally:
            # A row that came to its end was freed then, and may be another stream's by now.
            if self._streams.get(slot) is arrived:
                await self._release(slot)

    async def close(self) -> None:
        """Stop decoding."""
        if self._driver is not None:
            self._driver.cancel()
            await asyncio.gather(self._driver, return_exceptions=True)
            self._driver = None

    async def _release(self, slot: Slot) -> None:
        """Decode no more in this row and give it to whoever waits."""
        del self._streams[slot]
        self.engine.release(slot)
        async with self._free:
            self._free.notify()

    async def _admit(
        self, prompt: list[int], request: Request, limit: int
    ) -> tuple[Slot, asyncio.Queue[Sample | None]]:
        uniforms = noise(request.seed, *request.key, limit)
        arrived: asyncio.Queue[Sample | None] = asyncio.Queue()
        async with self._free:
            while True:
                slot = (
                    self.engine.admit(prompt, uniforms=uniforms, temperature=request.temperature, top_k=request.top_k)
                    if len(self._streams) < self.concurrency
                    else None
                )
                if slot is not None:
                    break
                await self._free.wait()
            self._streams[slot] = arrived
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        return slot, arrived

    async def _heard(self, slot: Slot, sample: Sample) -> None:
        """Hand on what a row has sampled; free the row where that was its last."""
        self._streams[slot].put_nowait(sample)
        # The row ends here even where its reader is busy elsewhere.
        if sample.token_id == self._tokens.end or slot.generated == len(slot.uniforms):
            await self._release(slot)

    async def _drive(self) -> None:
        """Step the decoder as long as a row is busy; readers run between two steps."""
        try:
            while self.engine.busy:
                for slot, sample in self.engine.step():
                    await self._heard(slot, sample)
                await asyncio.sleep(0)
        finally:
            for queue in self._streams.values():
                queue.put_nowait(None)


def open_embedded(model: str, options: Options) -> EmbeddedBackend:
    """`embedded[:NAME]`; further options do not apply to a model inside this process."""
    return EmbeddedBackend(model or "embedded", threads=options.threads)


def shipped_calibration() -> Path:
    """The calibration of the default model, made by the training run on its calibration split."""
    return packaged("embedded.calibration.json")
