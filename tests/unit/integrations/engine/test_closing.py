"""The tokens around a thought, and the texts of single tokens."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer

from justenough.errors import InputError
from justenough.integrations.engine.closing import Closing, Texts
from tests.conftest import CHECKPOINT


class Bytes:
    """A tokenizer with one token for each byte."""

    def decode(self, ids: list[int], /) -> str:
        return bytes(ids).decode(errors="replace")


def closing(start: str = "<think>", end: str = "\nNow.</think>", natural: str = "</think>") -> Closing:
    ids = {
        "reasoning_start_token_ids": list(start.encode()),
        "reasoning_end_token_ids": list(end.encode()),
        "natural_reasoning_end_token_ids": list(natural.encode()) or None,
    }
    return Closing.of(SimpleNamespace(**ids), Bytes())


def test_a_split_character_comes_with_its_last_token() -> None:
    texts = Texts(Bytes())
    assert [texts.feed(byte) for byte in "aé€b".encode()] == ["a", "", "é", "", "", "€", "b"]


def test_bytes_that_are_no_character_do_not_wait_for_ever() -> None:
    texts = Texts(Bytes())
    assert "".join(texts.feed(0xFF) for _ in range(40)).count("\ufffd") == 40


def test_the_texts_of_tokens_join_to_the_text_of_all() -> None:
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    text = "<think>47*36\n= 40*36 + 7*36</think>1692<|end|>"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    decoder = SimpleNamespace(decode=lambda some: tokenizer.decode(some, skip_special_tokens=False))
    texts = Texts(decoder)
    assert "".join(texts.feed(id) for id in ids) == tokenizer.decode(ids, skip_special_tokens=False)


def test_the_tags_are_those_of_the_server() -> None:
    assert closing().format.tags == ("<think>", "</think>")
    assert closing(natural="").natural == closing().end
    assert bytes(closing().end).decode() == "\nNow.</think>"


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [("", False), ("<think>", True), ("<think>\n", True), ("<think></think>", False), ("<think></think><think>", True)],
)
def test_the_prompt_opens_a_thought_that_it_does_not_close(prompt: str, opened: bool) -> None:
    assert closing().format_after(prompt.encode()).opened is opened


@pytest.mark.parametrize("config", [None, SimpleNamespace(reasoning_start_token_ids=None, reasoning_end_token_ids=[1])])
def test_a_server_must_know_how_a_thought_ends(config: SimpleNamespace | None) -> None:
    if config is not None:
        config.natural_reasoning_end_token_ids = None
    with pytest.raises(InputError, match="--reasoning-parser"):
        Closing.of(config, Bytes())
