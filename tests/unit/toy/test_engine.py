"""The batched decoder: rows, caches, pauses and sampling."""

from __future__ import annotations

import numpy as np
import pytest

from justenough.backends.batched import Sample, Slot
from justenough.backends.protocol import Message
from justenough.toy.engine import Engine
from justenough.toy.tokens import Tokens, packaged

TOKENS = Tokens()


def engine(width: int = 2) -> Engine:
    return Engine(packaged("embedded.onnx"), width=width)


def prompt(problem: str) -> list[int]:
    return TOKENS.conversation((Message("user", f"{problem}\nOne step."),), continue_final=False)


def admitted(
    decoder: Engine, ids: list[int], *, temperature: float = 0.0, top_k: int = 5, source: Slot | None = None
) -> Slot:
    slot = decoder.admit(ids, uniforms=np.full(200, 0.5), temperature=temperature, top_k=top_k, source=source)
    assert slot is not None
    return slot


def generate(decoder: Engine, slot: Slot, *, count: int = 12) -> list[Sample]:
    """The next samples of one row."""
    samples: list[Sample] = []
    while len(samples) < count:
        samples += [sample for row, sample in decoder.step() if row is slot]
    return samples


def test_a_full_batch_admits_no_prompt_until_a_row_is_released() -> None:
    decoder = engine(2)
    first, _ = admitted(decoder, prompt("47*36")), admitted(decoder, prompt("12*12"))
    assert decoder.busy == 2
    assert decoder.admit(prompt("7*18"), uniforms=np.zeros(5), temperature=0.0, top_k=1) is None
    decoder.release(first)
    assert decoder.busy == 1
    assert admitted(decoder, prompt("7*18")) is first


def test_a_prompt_goes_to_the_row_that_holds_its_beginning() -> None:
    decoder = engine(3)
    rows = [admitted(decoder, prompt(problem)) for problem in ("47*36", "5821%7", "41+93")]
    for row in rows:
        generate(decoder, row, count=1)
    for row in rows:
        decoder.release(row)
    again = admitted(decoder, prompt("5821%7"))
    assert again is rows[1]
    # Only the last token of the prompt is fed again.
    assert len(again.waiting) == 1


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_prefix_in_the_cache_does_not_change_a_bit(temperature: float) -> None:
    decoder = engine(1)
    slot = admitted(decoder, prompt("47*36"), temperature=temperature)
    first = generate(decoder, slot)
    decoder.release(slot)
    slot = admitted(decoder, prompt("47*36"), temperature=temperature)
    assert generate(decoder, slot) == first


def test_a_row_copied_from_another_continues_with_the_same_bits() -> None:
    decoder = engine(2)
    source = admitted(decoder, prompt("47*36"))
    samples = generate(decoder, source, count=6)
    ids = [*source.cached, samples[-1].token_id]
    copy = admitted(decoder, ids, source=source)
    assert copy is not source
    assert len(copy.waiting) == 1
    following = decoder.step()
    assert dict(following)[copy] == dict(following)[source]


def test_a_held_row_generates_nothing_and_is_not_free() -> None:
    decoder = engine(1)
    slot = admitted(decoder, prompt("47*36"))
    generate(decoder, slot, count=3)
    cached = list(slot.cached)
    decoder.hold(slot)
    assert decoder.busy == 0
    assert decoder.step() == []
    assert slot.cached == cached
    assert decoder.admit(prompt("12*12"), uniforms=np.zeros(5), temperature=0.0, top_k=1) is None


def test_a_resumed_row_continues_with_the_token_of_the_caller() -> None:
    decoder = engine(1)
    slot = admitted(decoder, prompt("47*36"))
    plain = generate(decoder, slot, count=8)
    decoder.release(slot)
    slot = admitted(decoder, prompt("47*36"))
    generate(decoder, slot, count=4)
    decoder.hold(slot)
    decoder.resume(slot, plain[3].token_id)
    assert generate(decoder, slot, count=4) == plain[4:]
    decoder.hold(slot)
    decoder.resume(slot, TOKENS.end)
    decoder.step()
    assert slot.cached[-1] == TOKENS.end


def test_samples_agree_with_the_logits_of_their_row() -> None:
    decoder = engine(2)
    slot = admitted(decoder, prompt("5821%7"), top_k=20)
    (sample,) = generate(decoder, slot, count=1)
    logits = decoder.logits(slot).astype(np.float64)
    logprobs = logits - np.logaddexp.reduce(logits)
    assert logits.shape == (decoder.vocabulary,)
    assert sample.token_id == int(logprobs.argmax())
    assert sample.logprob == pytest.approx(float(logprobs.max()))
    assert sample.top_logprobs == pytest.approx(tuple(np.sort(logprobs)[::-1][:20]))
    assert sample.discarded == 0


def test_the_logits_are_a_copy() -> None:
    decoder = engine(1)
    slot = admitted(decoder, prompt("47*36"))
    generate(decoder, slot, count=1)
    before = decoder.logits(slot)
    stored_rows = before.copy()
    generate(decoder, slot, count=1)
    assert np.array_equal(before, stored_rows)


@pytest.mark.parametrize(("uniform", "rank"), [(0.0, "first"), (1 - 1e-16, "last")])
def test_sampling_inverts_the_cumulative_distribution(uniform: float, rank: str) -> None:
    decoder = engine(1)
    slot = decoder.admit(prompt("47*36"), uniforms=np.array([uniform]), temperature=1.0, top_k=1)
    assert slot is not None
    (sample,) = generate(decoder, slot, count=1)
    expected = 0 if rank == "first" else decoder.vocabulary - 1
    assert sample.token_id == expected
