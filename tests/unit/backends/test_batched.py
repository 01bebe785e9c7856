"""The batched backend over a scripted decoder: rows, limits, errors, and what a reader receives."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.backends.batched import BatchedBackend, Decoder, Sample, Slot, Tokenizer
from justenough.backends.protocol import Finish, Message, Request
from justenough.errors import BackendUnavailable, ContextExceeded
from justenough.prompts import GENERAL, Prompts
from justenough.trace import Token

END = 0
VOCABULARY = ("", "a", "b", "c", "\N{EURO SIGN}"[0])
EURO = "\N{EURO SIGN}".encode()


class Letters:
    """Tokenizer of the scripted model: one id for each letter of the last message."""

    bytes: Sequence[bytes] = (b"", b"a", b"b", b"c", EURO[:1], EURO[1:])
    end = END

    def texts(self) -> Callable[[int], str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda token_id: decoder.decode(self.bytes[token_id])

    def conversation(self, messages: tuple[Message, ...], *, continue_final: bool) -> list[int]:
        return [1] * len(messages[-1].content)


class Scripted(Decoder):
    """A decoder whose rows all generate the same ids, then the end; it fails at the step `fails_at`."""

    def __init__(self, script: Sequence[int], *, rows: int, positions: int, fails_at: int | None = None) -> None:
        super().__init__(rows=rows, vocabulary=6, positions=positions)
        self.script, self.fails_at = script, fails_at
        self.admitted = self.steps = 0

    def admit(
        self,
        prompt: Sequence[int],
        *,
        uniforms: NDArray[np.float64],
        temperature: float,
        top_k: int,
        source: Slot | None = None,
    ) -> Slot | None:
        slot = super().admit(prompt, uniforms=uniforms, temperature=temperature, top_k=top_k, source=source)
        self.admitted += slot is not None
        return slot

    def copy(self, source: Slot, target: Slot, positions: slice) -> None:
        raise NotImplementedError

    def step(self) -> list[tuple[Slot, Sample]]:
        self.steps += 1
        if self.steps == self.fails_at:
            raise RuntimeError("out of memory")
        samples = []
        for slot in self.slots:
            if slot.busy:
                token_id = self.script[slot.generated] if slot.generated < len(self.script) else END
                slot.generated += 1
                samples.append((slot, Sample(token_id, -0.5, (-0.5,) * slot.top_k)))
        return samples

    def logits(self, slot: Slot) -> NDArray[np.float32]:
        raise NotImplementedError


class ScriptedModel:
    """The scripted decoder as a model."""

    name = "scripted"
    prompts: Prompts = GENERAL

    def __init__(self, script: Sequence[int], *, positions: int = 100, fails_at: int | None = None) -> None:
        self._script, self._positions, self._fails_at = script, positions, fails_at
        self.opened: list[Scripted] = []

    def read(self, problem: str) -> str:
        return problem.upper()

    def tokenizer(self) -> Tokenizer:
        return Letters()

    def decoder(self, *, rows: int, threads: int) -> Decoder:
        self.opened.append(Scripted(self._script, rows=rows, positions=self._positions, fails_at=self._fails_at))
        return self.opened[-1]


def request(text: str = "hello", *, max_tokens: int = 50, top_k: int = 3) -> Request:
    messages = (Message("user", text),)
    return Request(messages=messages, max_tokens=max_tokens, temperature=1.0, top_k=top_k, seed=0, key=(text, 1))


async def read(backend: BatchedBackend, query: Request) -> tuple[str, Finish]:
    items = [item async for item in backend.stream(query)]
    finish = items[-1]
    assert isinstance(finish, Finish)
    return "".join(item.text for item in items if isinstance(item, Token)), finish


def one(model: ScriptedModel, query: Request, *, concurrency: int = 2) -> tuple[str, Finish]:
    async def run() -> tuple[str, Finish]:
        backend = BatchedBackend(model, concurrency=concurrency)
        try:
            return await read(backend, query)
        finally:
            await backend.close()

    return asyncio.run(asyncio.wait_for(run(), 10))


def test_a_stream_ends_at_the_end_token_which_is_not_counted() -> None:
    assert one(ScriptedModel([1, 2, 3]), request()) == ("abc", Finish(reason="stop", tokens=3, prompt_tokens=5))


def test_a_stream_ends_at_the_limit_of_the_request() -> None:
    assert one(ScriptedModel([1, 2, 3]), request(max_tokens=2)) == (
        "ab",
        Finish(reason="length", tokens=2, prompt_tokens=5),
    )


def test_a_stream_ends_where_the_model_has_no_more_room() -> None:
    text, finish = one(ScriptedModel([1] * 99, positions=9), request("hello"))
    assert (text, finish.reason, finish.tokens) == ("aaaa", "length", 4)


@pytest.mark.parametrize("length", [9, 10])
def test_a_conversation_without_room_for_a_token_is_refused(length: int) -> None:
    with pytest.raises(ContextExceeded, match=f"{length} tokens, but scripted holds only 9"):
        one(ScriptedModel([1], positions=9), request("x" * length))


def test_a_character_of_two_tokens_belongs_to_the_second() -> None:
    async def run() -> list[str]:
        backend = BatchedBackend(ScriptedModel([4, 5, 1]), concurrency=1)
        texts = [item.text async for item in backend.stream(request()) if isinstance(item, Token)]
        await backend.close()
        return texts

    assert asyncio.run(run()) == ["", "\N{EURO SIGN}", "a"]


def test_more_streams_than_rows_wait_for_a_free_row() -> None:
    model = ScriptedModel([1, 2])

    async def run() -> list[tuple[str, Finish]]:
        backend = BatchedBackend(model, concurrency=2)
        try:
            return list(await asyncio.gather(*(read(backend, request(f"{number}")) for number in range(7))))
        finally:
            await backend.close()

    answers = asyncio.run(asyncio.wait_for(run(), 10))
    assert [text for text, _ in answers] == ["ab"] * 7
    assert len(model.opened) == 1
    assert model.opened[0].admitted == 7
    assert model.opened[0].busy == 0


def test_a_failing_decoder_is_an_error_for_every_stream_and_not_a_short_answer() -> None:
    async def run() -> list[BaseException | tuple[str, Finish]]:
        backend = BatchedBackend(ScriptedModel([1] * 20, fails_at=4), concurrency=2)
        try:
            streams = (read(backend, request(text)) for text in "ab")
            return list(await asyncio.gather(*streams, return_exceptions=True))
        finally:
            await backend.close()

    errors = asyncio.run(asyncio.wait_for(run(), 10))
    assert len(errors) == 2
    for error in errors:
        assert isinstance(error, BackendUnavailable)
        assert "scripted stopped" in str(error)


def test_the_decoder_is_loaded_at_the_first_use_and_stops_after_the_last_stream() -> None:
    model = ScriptedModel([1, 2])

    async def run() -> tuple[int, int]:
        backend = BatchedBackend(model, concurrency=3)
        assert not model.opened
        await read(backend, request())
        steps = model.opened[0].steps
        await asyncio.sleep(0.02)
        await backend.close()
        return steps, model.opened[0].steps

    before, after = asyncio.run(run())
    assert before == after == 3
    assert len(model.opened[0].slots) == 3


def test_closing_a_backend_that_was_never_used_does_nothing() -> None:
    model = ScriptedModel([1])
    asyncio.run(BatchedBackend(model, concurrency=1).close())
    assert not model.opened


@pytest.mark.parametrize(("top_k", "tail"), [(3, "renormalise"), (6, "full"), (20, "full")])
def test_the_signal_is_full_when_top_k_covers_the_vocabulary(top_k: int, tail: str) -> None:
    signal = BatchedBackend(ScriptedModel([1]), concurrency=1).signal(temperature=0.7, top_k=top_k)
    assert (signal.tail, signal.top_k, signal.logits, signal.temperature) == (tail, top_k, "raw", 0.7)


def test_the_model_reads_problems_in_its_own_way() -> None:
    backend = BatchedBackend(ScriptedModel([1]), concurrency=1)
    assert backend.read("abc") == "ABC"
    assert (backend.model, backend.prompts) == ("scripted", GENERAL)
