"""SGLang's protocol for custom logit processors (0.5.23), without SGLang: selected rows, parameters, lagging tokens."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch

from justenough.integrations.sglang import SGLangProcessor
from justenough.prompts import OPENED
from justenough.signal.signal import Signal
from tests.unit.gateway.serving import calibration_of
from tests.unit.integrations.vllm.runners import BREAK, CLOSE, STEP, WORDS, Talk, Words

SIGNAL = Signal(splitter="paragraph", logits="raw", top_k=5, temperature=0.0)
CALIBRATION = replace(calibration_of(0.5), signal=SIGNAL, prompts=replace(OPENED, close="</think>"))
SURE_THIRD = (False, False, True, False, True)
CUT = 1 + 3 * (len(STEP) + 1)


class Tokenizer(Words):
    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [WORDS.index(text)]


class Server:
    """SGLang's loop: rows of the requests with this processor are selected, and a new instance is called."""

    def __init__(self, *, lag: int = 0) -> None:
        self._lag = lag
        self.requests: list[tuple[Talk, SimpleNamespace]] = []

    def add(self, talk: Talk, **sampling: Any) -> None:
        request = SimpleNamespace(origin_input_ids=array("q", talk.prompt), output_ids=array("q"))
        request.tokenizer = Tokenizer()
        params = None if talk.args is None else talk.args | {"__req__": request}
        values = {"temperature": 1.0, "top_k": 1, "repetition_penalty": 1.0, "min_new_tokens": 0} | sampling
        request.sampling_params = SimpleNamespace(custom_params=params, **values)
        self.requests.append((talk, request))

    def step(self) -> None:
        running = [(talk, request) for talk, request in self.requests if not talk.ended]
        logits = torch.stack([talk.raw(len(talk.output), talk.output) for talk, _ in running])
        with_processor = [
            number for number, (_, request) in enumerate(running) if request.sampling_params.custom_params
        ]
        for number, (talk, request) in enumerate(running):
            talk.logits[len(talk.output)] = logits[number].clone()
            request.output_ids = array("q", talk.output[: len(talk.output) - self._lag])
        if with_processor:
            selected = logits[with_processor]
            params = [running[number][1].sampling_params.custom_params for number in with_processor]
            logits[with_processor] = SGLangProcessor()(selected, params)
        for (talk, _), row in zip(running, logits, strict=True):
            talk.seen[len(talk.output)] = row.clone()
            talk.output.append(int(row.argmax()))

    def run(self) -> None:
        for _ in range(200):
            if all(talk.ended for talk, _ in self.requests):
                return
            self.step()
        raise AssertionError([talk.text for talk, _ in self.requests])


def served(*talks: Talk, lag: int = 0, **sampling: Any) -> None:
    server = Server(lag=lag)
    for talk in talks:
        server.add(talk, **sampling)
    server.run()


def gated(**more: Any) -> dict[str, Any]:
    return {"justenough": CALIBRATION.dumps()} | more


def cut(talk: Talk, at: int = CUT) -> Sequence[int]:
    return [*talk.script[:at], *talk.script[-3:]]


def test_a_thought_is_cut_after_its_first_confident_step() -> None:
    talk = Talk(SURE_THIRD, gated(), again=True)
    served(talk)
    assert talk.output == cut(talk)
    assert talk.output[CUT - 1 : CUT + 1] == [BREAK, CLOSE]


def test_other_requests_keep_their_logits_bit_for_bit() -> None:
    plain, other, one = Talk(SURE_THIRD), Talk(SURE_THIRD, {"mine": 1}), Talk((True, True), gated())
    served(plain, one, other)
    for talk in (plain, other):
        assert talk.output == talk.script
        assert all(torch.equal(talk.logits[at], talk.seen[at]) for at in talk.logits)
    assert one.output == cut(one, 7)


def test_nothing_is_gated_where_tokens_lag_behind_the_logits(caplog: pytest.LogCaptureFixture) -> None:
    talk = Talk((True, True), gated())
    with caplog.at_level(logging.WARNING):
        served(talk, lag=1)
    assert talk.output == talk.script
    assert [record.message for record in caplog.records] == [
        "output tokens lag behind the logits, so nothing is gated: --disable-overlap-schedule"
    ]


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ({"top_k": -1, "temperature": 0.7}, "the request's temperature is 0.7"),
        ({"repetition_penalty": 1.1}, "repetition_penalty is 1.1"),
        ({"min_new_tokens": 4}, "min_tokens is 4"),
    ],
)
def test_a_request_with_another_signal_is_not_gated(
    caplog: pytest.LogCaptureFixture, sampling: dict[str, Any], words: str
) -> None:
    talk = Talk((True, True), gated())
    with caplog.at_level(logging.WARNING):
        served(talk, **sampling)
    assert talk.output == talk.script
    (record,) = caplog.records
    assert words in record.message


def test_a_request_cannot_break_the_server(caplog: pytest.LogCaptureFixture) -> None:
    forged, neighbour = Talk((True, True), gated(justenough_state="mine")), Talk(SURE_THIRD, gated())
    server = Server()
    server.add(forged)
    server.add(neighbour)
    with caplog.at_level(logging.WARNING):
        server.run()
    assert forged.output == forged.script
    assert neighbour.output == cut(neighbour)
    (record,) = caplog.records
    assert "a request is not gated: " in record.message


def test_a_server_without_a_tokenizer_does_not_gate(caplog: pytest.LogCaptureFixture) -> None:
    talk = Talk((True, True), gated())
    server = Server()
    server.add(talk)
    server.requests[0][1].tokenizer = None
    with caplog.at_level(logging.WARNING):
        server.run()
    assert talk.output == talk.script
    assert [record.message for record in caplog.records] == [
        "a request is not gated: the server has no tokenizer (leave out --skip-tokenizer-init)"
    ]


def test_a_batch_without_parameters_is_left_alone() -> None:
    logits = torch.zeros(2, 3)
    assert SGLangProcessor()(logits, None) is logits
    assert SGLangProcessor()(logits, [{}, {"__req__": None}, {"justenough": 1}]) is logits
