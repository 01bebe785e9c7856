"""The embedded model's own encoding is the library's, id for id."""

from __future__ import annotations

from functools import cache

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from justenough.backends.protocol import Message
from justenough.toy.families import questions
from justenough.toy.tokens import Tokens, packaged

WORDS = ["<|user|>", "<|assistant|>", "<|end|>", "<think>", "</think>", "\n\n", "\n", "Answer: ", "One step.", " again"]


@cache
def both() -> tuple[Tokens, Tokenizer]:
    return Tokens(), Tokenizer.from_file(str(packaged("tokenizer.json")))


@given(st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=12)), max_size=8).map("".join))
def test_any_text_has_the_librarys_ids(text: str) -> None:
    ours, theirs = both()
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids
    assert b"".join(ours.bytes[number] for number in ours.encode(text)) == text.encode()


def test_conversations() -> None:
    ours, theirs = both()
    for question, _ in zip(questions("calibration"), range(50), strict=False):
        thought = f"<think>{question.text}={question.answer}\n\n"
        queries = (Message("user", question.text), Message("assistant", thought))
        ids = ours.conversation(queries, continue_final=True)
        text = f"<|user|>{question.text}<|end|><|assistant|>{thought}"
        assert ids == theirs.encode(text, add_special_tokens=False).ids
