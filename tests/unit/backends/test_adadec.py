"""AdaDec: without a pause it is the embedded model; a pause chooses by look-ahead, and its tokens are counted."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

from justenough.backends.adadec import AdaDecBackend
from justenough.backends.batched import BatchedBackend
from justenough.backends.protocol import Finish, Message, Request
from justenough.backends.replay import ReplayBackend
from justenough.errors import InputError
from justenough.grading import Exact, Problem
from justenough.runner import Runner, RunSettings
from justenough.toy.adadec import embedded_adadec
from justenough.toy.backend import EmbeddedBackend, EmbeddedModel
from justenough.toy.engine import Engine
from justenough.toy.tokens import Tokens, packaged
from justenough.trace import Token, Trace

PROBLEMS = ("47*36", "83*67", "5821%7", "97%8", "41+93-28")


def request(problem: str, *, max_tokens: int = 200, temperature: float = 0.0) -> Request:
    return Request(
        messages=(Message("user", f"{problem}\nOne step."),),
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=20,
        seed=0,
        key=(problem, 1),
    )


async def generate(backend: BatchedBackend, *requests: Request) -> list[list[Token | Finish]]:
    async def one(query: Request) -> list[Token | Finish]:
        return [item async for item in backend.stream(query)]

    try:
        return list(await asyncio.gather(*(one(query) for query in requests)))
    finally:
        await backend.close()


def text(items: list[Token | Finish]) -> str:
    return "".join(item.text for item in items if isinstance(item, Token))


def by_hand(problem: str, *, threshold: float, candidates: int = 3, ahead: int = 5) -> tuple[str, int]:
    """The loop of the publication, slow and simple: each prefix goes through one row again, greedily."""
    engine, tokens = Engine(packaged("embedded.onnx"), width=1), Tokens()
    prompt = tokens.conversation(request(problem).messages, continue_final=False)

    def predicted(ids: list[int]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        slot = engine.admit(ids, uniforms=np.zeros(1), temperature=0.0, top_k=1)
        assert slot is not None
        while not engine.step():
            pass
        logits = engine.logits(slot).astype(np.float64)
        engine.release(slot)
        values: np.ndarray[tuple[int], np.dtype[np.float64]] = logits - np.logaddexp.reduce(logits)
        return values

    texts: list[int] = []
    discarded = 0
    while True:
        row = predicted(prompt + texts)
        chosen = int(row.argmax())
        if -float(np.exp(row) @ row) / math.log(2) > threshold:
            scores: dict[int, float] = {}
            for candidate in np.argsort(-row, kind="stable")[:candidates].tolist():
                path, logprobs = [candidate], [float(row[candidate])]
                while len(path) <= ahead and path[-1] != tokens.end:
                    following = predicted(prompt + texts + path)
                    path.append(int(following.argmax()))
                    logprobs.append(float(following.max()))
                discarded += len(path) - 1
                scores[candidate] = sum(logprobs) / len(logprobs)
            chosen = max(scores, key=lambda candidate: scores[candidate])
        if chosen == tokens.end:
            return b"".join(tokens.bytes[each] for each in texts).decode(), discarded
        texts.append(chosen)


def test_without_a_pause_it_is_the_embedded_model_bit_for_bit() -> None:
    requests = [request(problem, temperature=0.8) for problem in PROBLEMS]
    mine = asyncio.run(generate(embedded_adadec(threshold=math.inf), *requests))
    assert mine == asyncio.run(generate(EmbeddedBackend(), *requests))


@pytest.mark.parametrize("threshold", [0.02, 0.5])
def test_its_choices_and_counts_are_those_of_the_publication(threshold: float) -> None:
    backend = embedded_adadec(threshold=threshold)
    values = asyncio.run(generate(backend, *(request(problem) for problem in PROBLEMS)))
    assert backend.pauses > 0
    for problem, items in zip(PROBLEMS, values, strict=True):
        discarded = sum(item.discarded for item in items if isinstance(item, Token))
        assert (text(items), discarded) == by_hand(problem, threshold=threshold)


def test_look_ahead_can_overrule_the_likeliest_token(monkeypatch: pytest.MonkeyPatch) -> None:
    # This model is certain after each doubtful digit, so a test needs a prefix that is built for it.
    backend = embedded_adadec(threshold=0.02)
    monkeypatch.setattr("justenough.backends.adadec._Trajectory.score", property(lambda self: -self.logprobs[0]))
    values = asyncio.run(generate(backend, request("83*67")))[0]
    assert backend.changed == backend.pauses > 0
    plain = asyncio.run(generate(EmbeddedBackend(), request("83*67")))[0]
    assert text(values) != text(plain)
    assert all(item.logprob is not None and item.logprob <= 0 for item in values if isinstance(item, Token))


def test_the_limit_includes_the_look_ahead() -> None:
    free = asyncio.run(generate(embedded_adadec(threshold=0.02), request("83*67")))[0]
    total_spent = sum(1 + item.discarded for item in free if isinstance(item, Token))
    assert total_spent > len(free)
    limits = range(8, total_spent + 2)
    cut = asyncio.run(
        generate(embedded_adadec(threshold=0.02), *(request("83*67", max_tokens=limit) for limit in limits))
    )
    for limit, items in zip(limits, cut, strict=True):
        used = sum(1 + item.discarded for item in items if isinstance(item, Token))
        finish = items[-1]
        assert isinstance(finish, Finish)
        assert used <= limit
        assert finish.tokens == len(items) - 1
        assert finish.reason == ("length" if used == limit else "stop")


def test_a_stream_closed_in_a_pause_frees_all_its_rows() -> None:
    async def run() -> tuple[int, list[list[Token | Finish]]]:
        backend = embedded_adadec(threshold=0.0, concurrency=1)
        for count in range(1, 12):
            stream = backend.stream(request("83*67"))
            for _ in range(count):
                await anext(aiter(stream))
            await stream.aclose()  # type: ignore[attr-defined]
        busy = backend.engine.busy
        return busy, await generate(backend, request("83*67"))

    busy, after = asyncio.run(asyncio.wait_for(run(), 20))
    assert busy == 0
    assert after == asyncio.run(generate(embedded_adadec(threshold=0.0), request("83*67")))


def test_a_step_counts_its_look_ahead_and_keeps_its_coverage() -> None:
    async def run() -> tuple[int, int, float | None, float | None, int]:
        backend = embedded_adadec(threshold=0.02)
        runner = Runner(backend, RunSettings(max_steps=1, temperature=0.0), grader=Exact())
        result = await runner.run(Problem(id="83*67", problem="83*67", target="5561"))
        await backend.close()
        step = result.trace.steps[0]
        return step.tokens, step.discarded, step.coverage(), result.decisions[0].coverage, result.decisions[0].tokens

    tokens, discarded, covered, decided, token_count = asyncio.run(run())
    assert discarded > 0
    assert tokens == token_count > discarded
    assert covered == decided == 1.0


def test_a_recording_of_it_replays_with_its_look_ahead() -> None:
    async def run() -> tuple[Trace, Trace]:
        backend = embedded_adadec(threshold=0.02)
        problem = Problem(id="83*67", problem="83*67", target="5561")
        settings = RunSettings(max_steps=2, temperature=0.0)
        recorded = (await Runner(backend, settings, grader=Exact()).run(problem)).trace
        await backend.close()
        again = (await Runner(ReplayBackend([recorded]), settings, grader=Exact()).run(problem)).trace
        return recorded, again

    recorded, again = asyncio.run(run())
    assert recorded.steps[0].discarded > 0
    for mine, theirs in zip(recorded.steps, again.steps, strict=True):
        assert (mine.tokens, mine.extra, mine.coverage()) == (theirs.tokens, theirs.extra, theirs.coverage())
        assert (mine.text, mine.entropies) == (theirs.text, theirs.entropies)


def test_the_name_of_the_model_carries_threshold_and_shape() -> None:
    model = EmbeddedModel("embedded")
    assert AdaDecBackend(model, threshold=0.5).model == "justenough-embedded/adadec@0.5"
    shaped = AdaDecBackend(model, threshold=0.5, candidates=2, ahead=7, concurrency=3)
    assert shaped.model == "justenough-embedded/adadec@0.5,2x7"
    assert shaped.rows == 3 * (1 + 2)


@pytest.mark.parametrize("threshold", [-1.0, -math.inf, math.nan])
def test_a_threshold_that_is_not_an_entropy_is_refused(threshold: float) -> None:
    with pytest.raises(InputError, match=str(threshold)):
        AdaDecBackend(EmbeddedModel("embedded"), threshold=threshold)


@pytest.mark.parametrize(("candidates", "ahead"), [(1, 5), (3, 0)])
def test_too_few_candidates_or_tokens_are_refused(candidates: int, ahead: int) -> None:
    with pytest.raises(InputError, match="at least 2 candidates and 1 token"):
        AdaDecBackend(EmbeddedModel("embedded"), threshold=1.0, candidates=candidates, ahead=ahead)
