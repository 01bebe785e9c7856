import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.errors import InputError
from justenough.signal.steps import splitter


def boundaries(name: str, tokens: list[str]) -> list[int]:
    """Numbers of the tokens (from 1) with which a step ends."""
    watching = splitter(name)
    return [number for number, token in enumerate(tokens, 1) if watching.feed(token)]


@pytest.mark.parametrize(
    ("name", "tokens", "ends"),
    [
        ("completion", ["a", "\n\n", "b. "], []),
        ("tokens:3", ["a"] * 7, [3, 6]),
        ("tokens:1", ["a", "b"], [1, 2]),
        ("tokens:1", ["\n\n", "a", " ", "b"], [2, 4]),
        ("tokens:2", ["\n", "\n", "a", "", ""], [3, 5]),
        ("paragraph", ["one", "\n\n", "two", "\n", "\n", "three"], [2, 5]),
        ("paragraph", ["one\n", "  \t", "\ntwo"], [3]),
        ("paragraph", ["one\n", " " * 30, "\n"], [3]),
        ("paragraph", ["\n\n", " \n", "\n", "one", "\n\n"], [5]),
        ("paragraph", ["one", "\n", "two", "\n"], []),
        ("paragraph", ["one\n\ntwo", "\n\n"], [1]),
        ("sentence", ["It is", " 3.14", ". So", " yes", "!", ")", '"', " Then"], [3, 8]),
        ("sentence", ["Yes.", "No"], []),
        ("sentence", ["Wait", "." * 12, "\n"], [3]),
        ("sentence", ["知道", "了。", "好"], [2]),
    ],
)
def test_where_steps_end(name: str, tokens: list[str], ends: list[int]) -> None:
    assert boundaries(name, tokens) == ends


ENDS = {"paragraph": r"\n[ \t]*\n", "sentence": r"[.!?][\"')\]]*\s|[。！？]"}


@given(st.sampled_from(sorted(ENDS)), st.lists(st.text("a \t\n.!?\"')]。\xa0", max_size=4), max_size=20))
def test_steps_end_where_they_would_if_all_that_was_said_were_looked_at(name: str, tokens: list[str]) -> None:
    ends, said = [], ""
    for number, token in enumerate(tokens, 1):
        said += token
        if re.search(ENDS[name], said.lstrip()):
            ends.append(number)
            said = ""
    assert boundaries(name, tokens) == ends


@pytest.mark.parametrize("name", ["", "tokens:0", "tokens:-1", "tokens:x", "tokens:99999999", "line"])
def test_unknown_splitters_are_refused_naming_the_known(name: str) -> None:
    with pytest.raises(InputError, match="completion, paragraph, sentence, tokens:N"):
        splitter(name)
