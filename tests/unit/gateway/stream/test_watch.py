"""Where a thought begins and ends, however its tags are spread over tokens and chunks."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from justenough.gate import GateSettings
from justenough.gateway.stream.events import read
from justenough.gateway.stream.watch import Watch
from justenough.signal.entropy import entropy_of
from justenough.signal.signal import Signal
from justenough.signal.thought import Phase
from justenough.testing import CONFIDENT, UNSURE


def chunk(*texts: str, shown: str | None = None, row: Any = CONFIDENT, finish: str | None = None) -> Any:
    content = [
        {"token": text, "logprob": -0.1, "top_logprobs": [{"logprob": value} for value in row]} for text in texts
    ]
    delta = {"content": "".join(texts) if shown is None else shown}
    return read(json.dumps({"choices": [{"delta": delta, "logprobs": {"content": content}, "finish_reason": finish}]}))


def watch(splitter: str = "paragraph", *, threshold: float = 1.0) -> Watch:
    signal = Signal(splitter=splitter)
    gate = GateSettings(threshold=threshold, shape="streaming", signal=signal, decide="every", max_steps=10**9)
    return Watch(gate, cut=True)


@pytest.mark.parametrize("opening", [("<think>",), ("<", "think", ">"), ("\n", "<th", "ink>a")])
def test_a_tag_spread_over_tokens_opens_the_thought_and_is_no_step(opening: tuple[str, ...]) -> None:
    followed = watch("tokens:1")
    texts = [*opening, *([] if opening[-1].endswith("a") else ["a"])]
    cuts = [followed.take(chunk(text)) for text in texts]
    assert cuts == [False] * (len(texts) - 1) + [True]
    assert followed.stopped is not None
    # The tag's own tokens were generated for the first step, and are measured with it.
    assert (followed.stopped.step, followed.stopped.tokens) == (1, len(texts))
    assert followed.text == "".join(texts)


def test_a_cut_thought_does_not_end_in_the_beginning_of_a_tag() -> None:
    followed = watch()
    followed.take(chunk("<think>"))
    assert followed.take(chunk("So.\n\n</th"))
    assert (followed.cut_text, followed.surplus) == ("<think>So.\n\n", (4, 0))


@pytest.mark.parametrize("closing", [("</think>",), ("</", "think", ">"), ("so.</thi", "nk>Yes")])
def test_after_its_closing_tag_nothing_is_cut(closing: tuple[str, ...]) -> None:
    followed = watch()
    for text in ("<think>", "a", *closing):
        assert not followed.take(chunk(text))
    assert followed.phase is Phase.ANSWERING
    assert not followed.take(chunk("One.\n\n"))
    assert not followed.take(chunk("Two.\n\n"))
    assert followed.tokens == 4 + len(closing)


def test_a_text_that_only_begins_like_a_tag_is_no_thought() -> None:
    followed = watch("tokens:1")
    for text in ("<thin", " air>", "a", "b"):
        assert not followed.take(chunk(text))
    assert (followed.thought, followed.thought_tokens, followed.tokens) == (False, 0, 4)


def test_several_tokens_in_a_chunk_are_heard_one_by_one() -> None:
    followed = watch(threshold=2.0)
    assert not followed.take(chunk("<think>", "a", "\n\n", "b", row=UNSURE))
    assert followed.take(chunk("c", "\n\n", "d"))
    bits = entropy_of(CONFIDENT)
    assert followed.stopped is not None
    assert followed.stopped.step == 2
    # The unsure b, which came in the first chunk, is in the second step's mean.
    assert followed.stopped.entropy == pytest.approx((math.log2(20) + 2 * bits) / 3)


def test_log_probabilities_of_another_text_are_not_used() -> None:
    followed = watch()
    followed.take(chunk("<think>"))
    assert not followed.take(chunk("x", "y", "z", shown="a\n\n"))
    assert list(followed.notes) == ["misaligned_logprobs", "missing_logprobs"]
    assert followed.tokens == 4


def test_an_incomplete_character_is_one_token_with_its_own_log_probabilities() -> None:
    followed = watch()
    followed.take(chunk("<think>"))
    assert followed.take(chunk("\ufffd", shown="é\n\n"))
    assert followed.stopped is not None
    assert followed.stopped.coverage == 1.0


def test_the_end_of_the_sequence_is_no_token() -> None:
    followed = watch()
    followed.take(chunk("<think>", "a"))
    followed.take(chunk("", finish="stop"))
    assert (followed.tokens, followed.finish) == (2, "stop")
