"""A thought without tags: where it ends, where it is cut, and what is elicited there."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.real.record import Completion
from benchmarks.real.stream import Streamer, StreamSettings, collect, segments, thought_end
from justenough.backends.protocol import Finish, Request
from justenough.grading import Problem, open_grader
from justenough.prompts import GENERAL, Prompts
from justenough.signal.signal import Signal
from justenough.trace import Token
from justenough.trace.files import read_traces

SETTINGS = StreamSettings(min_tokens=3)


def pieces(text: str) -> list[str]:
    """Words with the blank before them, as a tokenizer would cut them."""
    return re.findall(r" ?[^ \n]+|\n", text)


class Scripted:
    """A backend that says one text, and the count of words so far wherever an answer is elicited."""

    model = "scripted"
    prompts: Prompts = GENERAL
    concurrency = 2

    def __init__(self, text: str, *, finish: str = "stop") -> None:
        self.text = text
        self.finish = finish
        self.elicited: list[str] = []
        self.generated = 0

    def signal(self, *, temperature: float, top_k: int) -> Signal:
        return Signal(top_k=top_k, logits="raw", temperature=temperature)

    async def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
        said = pieces(self.text)
        if request.continue_final:
            self.elicited.append(request.messages[-1].content)
            said = [" 4", "2", "\nMore", " words"]
        for text in said:
            self.generated += request.continue_final
            yield Token(text=text, top_logprobs=[-0.1, -3.0] * 10, logprob=-0.1)
        yield Finish(reason=self.finish, tokens=len(said), prompt_tokens=30)


def run(backend: Scripted, *, target: str = "42") -> list[tuple[str, str | None, bool | None, int]]:
    streamer = Streamer(backend, SETTINGS, open_grader("number"))  # type: ignore[arg-type]
    trace = asyncio.run(streamer.run(Problem(id="1", problem="What?", target=target)))
    assert trace.shape == "streaming"
    return [(step.text, step.answer, step.correct, step.tokens) for step in trace.steps]


def test_the_thought_ends_before_the_cue() -> None:
    texts = ["Two", " and", " two.", "\n", "Answer", ":", " 4"]
    assert thought_end(texts) == 3
    assert thought_end(["The", " answer", ":", " 4"]) == 4
    assert thought_end(["So", ".", "\n", "**", "Answer", ":**", " 4"]) == 2
    assert thought_end(["no", " cue"]) == 2


def test_an_answer_without_any_thought_is_the_thought() -> None:
    assert thought_end(["Answer", ":", " 4"]) == 3


def test_cuts_are_the_splitters_and_the_last_is_the_end() -> None:
    texts = pieces("One two three. Four five six. Seven.")
    assert segments(texts, SETTINGS) == [4, 7]
    assert segments(["word"], SETTINGS) == [1]
    assert segments(pieces("a. b. c. d. e. f"), StreamSettings(min_tokens=100)) == [6]


def test_each_cut_has_an_answer_and_the_last_is_the_models_own() -> None:
    backend = Scripted("One two three. Four five six seven.\nAnswer: 7")
    rows = run(backend)
    assert [row[0] for row in rows] == ["One two three. Four", " five six seven."]
    assert rows[0][1:3] == ("42", True)
    assert rows[-1][1:3] == ("7", False)
    assert all(text.endswith("\n\nAnswer:") for text in backend.elicited)


def test_the_elicitation_is_cancelled_at_the_end_of_its_line() -> None:
    backend = Scripted("One two three. Four five six. Seven eight nine ten.")
    streamer = Streamer(backend, SETTINGS, open_grader("number"))  # type: ignore[arg-type]
    trace = asyncio.run(streamer.run(Problem(id="1", problem="What?", target="42")))
    for step in trace.steps:
        assert step.probe is not None
        assert step.probe.tokens == 3
        assert step.probe.prompt_tokens is None
    assert backend.generated == 3 * len(trace.steps)


def test_a_collection_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    problems = [Problem(id=str(number), problem="What?", target="42") for number in range(4)]
    out = tmp_path / "out.parquet"
    streamer = Streamer(Scripted("One two three four."), SETTINGS, open_grader("number"))  # type: ignore[arg-type]
    assert asyncio.run(collect(streamer, problems[:2], out, concurrency=2)) == 2
    assert asyncio.run(collect(streamer, problems, out, concurrency=2)) == 2
    assert [trace.id for trace in read_traces(out).traces] == ["0", "1", "2", "3"]


def test_a_recorded_completion_is_put_together_from_any_pieces() -> None:
    events = b""
    for text in ("Hel", "lo"):
        entry = {"token": text, "logprob": -0.25, "top_logprobs": [{"logprob": -0.25}, {"logprob": -2.0}]}
        events += b"data: " + json.dumps({"choices": [{"logprobs": {"content": [entry]}}]}).encode() + b"\n\n"
    events += b"data: [DONE]\n\n"
    for size in (1, 7, len(events)):
        completion = Completion([{"content": "What?"}, {"content": "Hi"}, {"content": "Again"}])
        for at in range(0, len(events), size):
            completion.feed(events[at : at + size])
        assert completion.ended
        row = json.loads(gzip.decompress(gzip.compress(completion.line().encode())))
        assert row == {
            "asked": hashlib.sha256(b"What?").hexdigest(),
            "turn": 2,
            "text": "Hello",
            "tokens": ["Hel", "lo"],
            "logprobs": [-0.25, -0.25],
            "top_logprobs": [[-0.25, -2.0], [-0.25, -2.0]],
        }
