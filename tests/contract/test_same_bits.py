"""The same logits everywhere: library, gateway, gated client, engines and decoders measure and decide alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import openai
import pytest
import torch
from numpy.typing import NDArray

import justenough
from justenough.backends.rows import Choice, NetworkDecoder
from justenough.calibration.calibration import Calibration
from justenough.errors import SignalMismatch
from justenough.gateway.stream.events import read
from justenough.integrations.engine.request import Order, admit
from justenough.integrations.engine.track import ThoughtGate
from justenough.integrations.logits import entropy_bits, top_logprobs
from justenough.integrations.transformers.sequence import Measured, stopping
from justenough.integrations.transformers.sequence import Sequence as Followed
from justenough.integrations.transformers.watching import Batch
from justenough.signal.entropy import token_entropy
from justenough.signal.signal import Signal
from justenough.testing import CONFIDENT, UNSURE
from justenough.trace import Token
from justenough.wire.logprobs import entries_of, fitted
from tests.contract.test_parity import (
    BODY,
    STREAMS,
    THRESHOLD,
    Recorded,
    Taken,
    continued,
    final_answer,
    mock_of,
    row,
    through_gateway,
)
from tests.unit.gateway.serving import calibration_of

VOCABULARY: Final = 300
LOGITS: Final = 3.0 * np.random.default_rng(0).standard_normal((6, VOCABULARY)).astype(np.float32)
LOGPROBS: Final = torch.log_softmax(torch.from_numpy(LOGITS).double(), dim=-1).numpy()
TOP: Final = Signal(top_k=20)
FULL: Final = Signal(top_k=VOCABULARY, tail="full")
Bits = list[float | None]


def by_decoder(signal: Signal) -> Bits:
    """The decoder of `hf:` and of the embedded model."""
    choices = [Choice(logprobs) for logprobs in torch.from_numpy(LOGPROBS)]
    decoder = NetworkDecoder(
        lambda place, ids: choices[place], lambda rows, ids: [], rows=len(LOGITS), vocabulary=VOCABULARY, positions=9
    )
    for _ in LOGITS:
        decoder.admit([1], uniforms=np.full(2, 0.5), temperature=1.0, top_k=signal.top_k or 1)
    samples = {slot.row: sample for slot, sample in decoder.step()}
    return [Token("", samples[place].top_logprobs).bits(signal) for place in range(len(LOGITS))]


def by_transformers(signal: Signal) -> Bits:
    batch = Batch([SimpleNamespace(measures=True)] * len(LOGITS), signal)  # type: ignore[list-item]
    batch.measure(torch.from_numpy(LOGITS))
    measured = batch._measured(torch.zeros(len(LOGITS), dtype=torch.long))
    return [None if one is None else Token("")._replace(**one._asdict()).bits(signal) for one in measured]


def by_vllm(signal: Signal) -> Bits:
    logits = torch.from_numpy(LOGITS)
    if signal.tail == "full":
        return list(entropy_bits(logits))
    return [Token("", tuple(each)).bits(signal) for each in top_logprobs(logits, signal.top_k or 1)]


def by_gateway(signal: Signal) -> Bits:
    """The log-probabilities as a server sends them."""
    bits: Bits = []
    for logprobs in top_of(LOGPROBS, signal.top_k or 1):
        entry = {"token": "a", "logprob": -0.1, "top_logprobs": [{"logprob": value} for value in logprobs.tolist()]}
        event = {"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [entry]}, "finish_reason": None}]}
        choice = read(json.dumps(event).encode()).choice
        assert choice is not None
        (token,), _ = fitted("a", entries_of(choice.logprobs), finish=None)
        bits.append(token.bits(signal))
    return bits


def top_of(logprobs: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    return -np.sort(-logprobs, axis=1)[:, :most]


@pytest.mark.parametrize("signal", [TOP, FULL, Signal(top_k=5, tail="bucket")], ids=["top 20", "full", "bucket"])
@pytest.mark.parametrize("way", [by_decoder, by_transformers, by_vllm, by_gateway])
def test_entropies_are_the_librarys_to_the_precision_of_floats(way: Callable[[Signal], Bits], signal: Signal) -> None:
    expected = token_entropy(LOGPROBS, tail=signal.tail, top_k=signal.top_k)
    assert way(signal) == pytest.approx(expected.tolist(), abs=1e-4)


async def through_client(recorded: Recorded) -> Taken:
    calibration = replace(calibration_of(THRESHOLD), prompts=recorded.prompts)
    async with mock_of(recorded) as mock:
        plain = openai.AsyncOpenAI(base_url=mock.url, api_key="k")
        async with justenough.gated(plain, calibration) as client:
            reply: Any = await client.chat.completions.create(
                model=BODY["model"], messages=BODY["messages"], extra_body={"justenough": BODY["justenough"]}
            )
        decisions = [
            (each["step"], each["reason"], each["entropy"], each["tokens"]) for each in reply.justenough["decisions"]
        ]
        return Taken(decisions, final_answer(recorded, reply.choices[0].message.content), continued(mock))


def through_engine(recorded: Recorded) -> list[tuple[int, str, float | None, int]]:
    """Token by token, as in `generate`; returns the decisions."""
    given = replace(calibration_of(THRESHOLD), prompts=recorded.prompts)
    texts = [text for text, _ in recorded.tokens]
    shared = stopping(given, thought=None, chat_template=None, encode=lambda text: [-1])
    one = Followed(shared, prompt="", texts=texts.__getitem__, ends=frozenset())
    for number, (_, sure) in enumerate(recorded.tokens):
        if one.forced is not None:
            break
        one.take(number, Measured(-0.1, tuple(CONFIDENT if sure else UNSURE)))
    decisions: Any = one.report()["decisions"]
    return [(each["step"], each["reason"], each["entropy"], each["tokens"]) for each in decisions]


def through_plugin(recorded: Recorded) -> list[tuple[int, str, float | None, int]]:
    """Token by token, as in vLLM's plugin; returns the decisions."""
    given = replace(calibration_of(THRESHOLD), prompts=recorded.prompts)
    gate = ThoughtGate(Order("key", "id", given), recorded.thought)
    for text, sure in recorded.tokens:
        if gate.take(Token(text, tuple(CONFIDENT if sure else UNSURE))):
            break
    return list(map(row, gate.decisions))


@pytest.mark.parametrize("name", STREAMS)
def test_a_gated_client_and_engines_decide_as_the_gateway(name: str) -> None:
    recorded = STREAMS[name]

    async def both() -> tuple[Taken, Taken]:
        return await through_gateway(recorded), await through_client(recorded)

    gateway, client = asyncio.run(both())
    assert client == gateway
    if recorded.field is None:
        assert through_engine(recorded) == gateway.decisions
        assert through_plugin(recorded) == gateway.decisions


def into_transformers(calibration: Calibration) -> None:
    stopping(calibration, thought=None, chat_template=None, encode=lambda text: [])


def into_vllm(calibration: Calibration) -> None:
    admit(SimpleNamespace(n=1, temperature=0.0, extra_args={"justenough": calibration.dumps()}))


@pytest.mark.parametrize("engine", [into_transformers, into_vllm])
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"shape": "sequential"}, "sequential steps"),
        ({"signal": Signal(logits="processed", splitter="paragraph")}, "processed"),
        ({"signal": Signal(kind="1 - confidence", top_k=None)}, "1 - confidence"),
    ],
    ids=["shape", "logits", "kind"],
)
def test_a_mix_of_signals_is_refused_with_the_way_to_recalibrate(
    engine: Callable[[Calibration], None], change: dict[str, Any], what: str
) -> None:
    with pytest.raises(SignalMismatch, match=what) as refused:
        engine(replace(calibration_of(THRESHOLD), **change))
    assert "calibrate" in refused.value.hint
