"""Recorded traces as a backend: the same tokens, counts and errors, without a model."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from justenough.backends.protocol import Finish, Message, Request
from justenough.backends.registry import Options, open_backend
from justenough.backends.replay import ReplayBackend, open_replay
from justenough.errors import BackendRejected, InputError
from justenough.signal.signal import Signal
from justenough.trace import Probe, Step, Token, Trace
from justenough.trace.files import write_traces

SIGNAL = Signal(top_k=2, logits="raw", temperature=0.6)
FIRST = Step(
    text="ab",
    answer="1",
    correct=False,
    tokens=2,
    finish="stop",
    prompt_tokens=7,
    entropies=(0.5, 0.25),
    token_texts=("a", "b"),
    logprobs=(-0.1, -0.2),
    probe=Probe(answer="1", correct=False, tokens=3, text="Answer: 1", prompt_tokens=9),
)
SECOND = Step(text="cde", answer="2", correct=True, tokens=3, finish="length", entropies=(0.1, 0.2, 0.3))
TRACE = Trace(id="p1", model="m", signal=SIGNAL, steps=(FIRST, SECOND))


def request(step: int = 1, *, key: str = "p1") -> Request:
    return Request(messages=(Message("user", "p"),), max_tokens=99, temperature=0.6, top_k=2, seed=0, key=(key, step))


def replayed(trace: Trace, query: Request) -> tuple[list[Token], Finish]:
    async def run() -> list[Token | Finish]:
        backend = ReplayBackend([trace])
        try:
            return [item async for item in backend.stream(query)]
        finally:
            await backend.close()

    items = asyncio.run(run())
    finish = items[-1]
    assert isinstance(finish, Finish)
    return [item for item in items if isinstance(item, Token)], finish


def test_a_step_is_repeated_token_by_token() -> None:
    tokens, finish = replayed(TRACE, request())
    assert [(token.text, token.entropy, token.logprob) for token in tokens] == [("a", 0.5, -0.1), ("b", 0.25, -0.2)]
    assert finish == Finish(reason="stop", tokens=2, prompt_tokens=7)


def test_without_token_texts_the_last_token_has_the_text() -> None:
    tokens, finish = replayed(TRACE, request(2))
    assert [token.text for token in tokens] == ["", "", "cde"]
    assert finish == Finish(reason="length", tokens=3)


def test_log_probabilities_are_repeated_instead_of_entropies() -> None:
    rows = ((-0.1, -2.0), (-0.7, -0.8))
    step = replace(FIRST, entropies=None, top_logprobs=rows)
    tokens, _ = replayed(replace(TRACE, steps=(step,)), request())
    assert [token.top_logprobs for token in tokens] == list(rows)
    assert [token.entropy for token in tokens] == [None, None]


def test_in_the_streaming_shape_all_later_steps_follow() -> None:
    trace = replace(TRACE, shape="streaming")
    tokens, finish = replayed(trace, request())
    assert "".join(token.text for token in tokens) == "abcde"
    assert finish == Finish(reason="length", tokens=5, prompt_tokens=7)
    assert "".join(token.text for token in replayed(trace, request(2))[0]) == "cde"


def test_a_probe_is_repeated_as_text() -> None:
    tokens, finish = replayed(TRACE, request(key="p1#answer"))
    assert [token.text for token in tokens] == ["Answer: 1"]
    assert finish == Finish(reason="stop", tokens=3, prompt_tokens=9)
    assert FIRST.probe is not None
    bare = replace(FIRST, probe=replace(FIRST.probe, text=None))
    assert replayed(replace(TRACE, steps=(bare,)), request(key="p1#answer"))[0][0].text == "Answer: 1"


def test_discarded_tokens_and_layers_come_with_the_first_token() -> None:
    step = replace(FIRST, tokens=12, extra={"discarded": 10, "layers": 8})
    tokens, finish = replayed(replace(TRACE, steps=(step,)), request())
    assert [(token.discarded, token.layers) for token in tokens] == [(10, 8), (0, 0)]
    assert finish.tokens == 2


@pytest.mark.parametrize(("key", "step"), [("p2", 1), ("p1", 3), ("p1#answer", 2), ("p2#answer", 1)])
def test_what_was_not_recorded_is_rejected(key: str, step: int) -> None:
    with pytest.raises(BackendRejected, match="collect") as error:
        replayed(TRACE, request(step, key=key))
    assert error.value.status == 404


@pytest.mark.parametrize("step", [replace(SECOND, entropies=None, entropy=0.2), replace(FIRST, token_texts=("ab",))])
def test_a_step_without_the_entropies_of_its_tokens_is_rejected(step: Step) -> None:
    with pytest.raises(BackendRejected, match="without the entropies of its tokens"):
        replayed(replace(TRACE, steps=(step,)), request())


def test_the_backend_has_the_model_and_the_signal_of_the_recording() -> None:
    backend = ReplayBackend([TRACE], concurrency=5)
    assert (backend.model, backend.concurrency, backend.prompts.name) == ("m", 5, "general")
    assert backend.signal(temperature=2.0, top_k=20) == SIGNAL
    assert backend.read("x") == "x"
    assert ReplayBackend([replace(TRACE, model="justenough-repaired")]).prompts.name == "embedded"


def test_traces_of_no_model_or_of_two_are_refused() -> None:
    with pytest.raises(InputError, match="no trace to replay"):
        ReplayBackend([])
    with pytest.raises(InputError, match="come from 2 models"):
        ReplayBackend([TRACE, replace(TRACE, id="p2", model="other")])


def test_it_is_opened_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    write_traces([TRACE], path)
    backend = open_backend(f"replay:{path}", concurrency=2)
    assert (backend.model, backend.concurrency) == ("m", 2)
    with pytest.raises(InputError, match="replay needs a file"):
        open_replay("", Options())
