"""Where a thought begins and ends, in every format, however its tags are split over tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.errors import InputError
from justenough.signal.thought import (
    ANY,
    FORMATS,
    THINK,
    Follower,
    Phase,
    ThoughtFormat,
    answer_begin,
    closed_in,
    name_of,
    named_in,
    opened_by,
    tagged_with,
    thought_format,
)

OPENED = FORMATS["think-opened"]
CUE = thought_format("until:Answer:")


def words_of(format: ThoughtFormat, *texts: str) -> list[str | None]:
    follower = Follower(format)
    return [follower.feed(text) for text in texts]


@pytest.mark.parametrize(
    ("format", "texts", "words"),
    [
        (THINK, ("<think>", "a", "</think>", "b"), [None, "a", None, None]),
        (THINK, ("<th", "ink>a", "b</th", "ink>c"), [None, "a", "b", None]),
        (THINK, ("\n", "<think>\n", "a"), [None, "\n", "a"]),
        (THINK, ("a</think>Answer",), [None]),
        (THINK, ("<think>", "a <", "b", " </div>"), [None, "a ", "<b", " </div>"]),
        (THINK, ("<think>", "", "a"), [None, "", "a"]),
        (OPENED, ("a", "b</think>c"), ["a", "b"]),
        (OPENED, ("<think>", "a", "</think>"), [None, "a", None]),
        (FORMATS["mistral"], ("[THINK]", "a", "[/THINK]b"), [None, "a", None]),
        (FORMATS["seed"], ("<seed:", "think>a", "</seed:think>"), [None, "a", None]),
        (THINK, ("Sure", "! <th", "ink>a", "</think>b"), [None, None, "a", None]),
        (THINK, ("Okay", " <think>", "\na"), [None, None, "\na"]),
        (THINK, ("Hmm", " <think>", "so", " it"), [None, None, "so", " it"]),
        (THINK, ("Hmm", " <think>", " So", " it"), [None, None, " So", " it"]),
        (FORMATS["kimi"], ("◁think", "▷a", "◁/think▷b"), [None, "a", None]),
        (FORMATS["gemma"], ("<|channel>", "thought", "\na", "<channel|>b"), [None, None, "\na", None]),
        (
            FORMATS["granite"],
            ("Here is my", " thought process:", "a ", "Here is my response:"),
            [None, None, "a ", None],
        ),
        (FORMATS["harmony"], ("<|channel|>", "analysis", "<|message|>", "a", "<|end|>"), [None, None, None, "a", None]),
        (CUE, ("so ", "Ans", "wer: 4"), ["so ", None, None]),
        (CUE, ("An", "ts\n"), [None, "Ants\n"]),
    ],
)
def test_the_words_of_a_thought(format: ThoughtFormat, texts: tuple[str, ...], words: list[str | None]) -> None:
    assert words_of(format, *texts) == words


def test_the_phases() -> None:
    follower = Follower()
    assert (follower.phase, follower.thought) == (Phase.UNKNOWN, False)
    follower.feed("<think>a</")
    assert (follower.phase, follower.thought, follower.pending) == (Phase.THINKING, True, "</")
    follower.feed("think>")
    assert (follower.phase, follower.pending) == (Phase.ANSWERING, "")
    plain = Follower()
    plain.feed("Hello")
    assert (plain.phase, plain.thought) == (Phase.UNKNOWN, False)
    plain.feed(", this is an answer without any thought before it.")
    assert (plain.phase, plain.thought) == (Phase.ANSWERING, False)


def test_a_thought_in_a_field_of_its_own_ends_with_the_field() -> None:
    follower = Follower()
    follower.enter_field()
    assert [follower.feed(text) for text in ("<think>", "a </think> b")] == [None, "a </think> b"]
    follower.leave_field()
    assert follower.answering


pieces = st.lists(st.sampled_from(["a", " ", "\n\n", "<", "</", "/", "think", ">", "[", "Answer", ":"]), max_size=8)


@given(pieces.map("".join), st.sampled_from([*FORMATS.values(), CUE]), st.data())
def test_the_words_are_the_same_however_the_text_is_split(
    said: str, format: ThoughtFormat, data: st.DataObject
) -> None:
    inside = said.split(format.close)[0]
    text = f"{'' if format.opened else format.open}{inside}{format.close}the rest"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=12)))
    texts = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    follower = Follower(format)
    words = "".join(follower.feed(piece) or "" for piece in texts)
    assert follower.answering
    # The close tag may begin earlier where the words before it end in a part of it.
    expected = text.removeprefix("" if format.opened else format.open).partition(format.close)[0]
    if format.opened and format.open and inside.lstrip().startswith(format.open):
        expected = inside.lstrip().removeprefix(format.open)
    assert words == expected


def test_the_parts_of_a_whole_text() -> None:
    assert (THINK.thought_of("<think>a</think>b"), THINK.answer_of("<think>a</think>b")) == ("<think>a", "b")
    assert CUE.answer_of("so Answer: 4") == "Answer: 4"
    assert THINK.answer_of("b") == "b"
    assert (THINK.with_tag("a"), THINK.with_tag("<think>a"), CUE.with_tag("a")) == ("<think>\na", "<think>a", "a")
    assert [answer_begin(text) for text in ("a", "<think>a", "a</think>b", "[THINK]a", "see [THINK]")] == [
        0,
        None,
        9,
        None,
        0,
    ]


@pytest.mark.parametrize("format", ANY)
@pytest.mark.parametrize("before", ["", "\n\n", "Okay. "])
def test_the_opening_tag_shows_the_format(format: ThoughtFormat, before: str) -> None:
    if before.strip() and not format.open.startswith(("<", "[", "◁")):
        before = ""
    follower = Follower(*ANY)
    text = f"{before}{format.open}so it is{format.close}42"
    words = "".join(follower.feed(char) or "" for char in text)
    assert (follower.format, words, follower.answering) == (format, "so it is", True)


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<THINK>", "</THINK>"),
        ("<Thought>", "</Thought>"),
        ("<think >", "</think>"),
        ('<think lang="en">', "</think>"),
        ("<longcat_think>", "</longcat_think>"),
        ("<think_fast>", "</think_fast>"),
    ],
)
@pytest.mark.parametrize("size", [1, 100])
def test_a_variant_of_a_tag_opens_a_thought(opening: str, closing: str, size: int) -> None:
    text = f"\n{opening}so it is{closing}42"
    follower = Follower(*ANY)
    words = [follower.feed(text[at : at + size]) for at in range(0, len(text), size)]
    assert ("".join(word or "" for word in words), follower.answering) == ("so it is", True)
    assert follower.format.tags == (opening, closing)
    # Where the format is certain, no other is a thought.
    alone = Follower(THINK)
    assert not any(alone.feed(char) for char in text)


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<Think>", "</think>"),
        ("<think>", "</Think>"),
        ("<think>", "</think >"),
        ("<THINK>", "</think  >"),
        ("<think_fast>", "</Think_Fast>"),
        ("[THINK]", "[/think]"),
        ("<seed:think>", "</seed:think >"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 5, 100])
def test_a_closing_tag_ends_the_thought_in_any_case_and_with_spaces(opening: str, closing: str, size: int) -> None:
    text = f"{opening}so </thin it is{closing}42 </think>"
    follower = Follower(THINK, *ANY)
    words = [follower.feed(text[at : at + size]) for at in range(0, len(text), size)]
    assert ("".join(word or "" for word in words), follower.answering) == ("so </thin it is", True)
    assert follower.format.thought_of(text) == f"{opening}so </thin it is"
    assert follower.format.answer_of(text.removesuffix(" </think>")) == "42"


@pytest.mark.parametrize("text", ["</think x>", "</ think>", "<think>", "</think" + " " * 100 + ">", "</thinking >"])
@pytest.mark.parametrize("size", [1, 100])
def test_another_tag_in_a_thought_does_not_end_it(text: str, size: int) -> None:
    follower = Follower(THINK)
    follower.feed("<think>")
    words = [follower.feed(text[at : at + size]) for at in range(0, len(text), size)]
    assert ("".join(word or "" for word in words) + follower.pending, follower.answering) == (text, False)


def test_a_cue_counts_only_as_it_is_written() -> None:
    follower = Follower(thought_format("until:Answer:"))
    assert "".join(follower.feed(char) or "" for char in "The answer: Answer : Answer:") == "The answer: Answer : "
    assert follower.answering


@pytest.mark.parametrize("text", ["<thinker>a", "<reason>a", "<rethink>a", "<div think>a", "< think>a", "<think a"])
def test_another_tag_opens_no_thought(text: str) -> None:
    follower = Follower(*ANY)
    assert not any(follower.feed(char) for char in text)
    assert not follower.thought


def test_a_sentence_in_an_answer_opens_no_thought() -> None:
    follower = Follower(*ANY)
    for word in ("Well. ", "Here is my thought process: ", "x" * 40):
        follower.feed(word)
    assert (follower.answering, follower.thought) == (True, False)


def test_a_tag_far_behind_the_beginning_opens_no_thought() -> None:
    follower = Follower()
    for word in ("HTML has no tag that is called ", "by the name of ", "<think>", "a"):
        follower.feed(word)
    assert (follower.answering, follower.thought) == (True, False)


@pytest.mark.parametrize("size", [1, 2, 3, 500])
@pytest.mark.parametrize("length", range(28, 38))
def test_the_last_place_of_an_opening_tag_does_not_depend_on_the_tokens(length: int, size: int) -> None:
    text = f"{'w' * (length - 2)}. <think>so it is"
    follower = Follower()
    for at in range(0, len(text), size):
        follower.feed(text[at : at + size])
    assert follower.thought is (length <= 34)


@pytest.mark.parametrize(
    "text",
    [
        "Use `<think>` tags.\n\nThen",
        "Write:\n```xml\n<think>\n```",
        'Put it in "<think>" tags',
        "The <think> tag marks a thought.\n\n",
        "<div><thinking>a\n\n</thinking></div>",
        "Sure. <think> is a tag that models use.\n\nIt marks",
        "Both tags:\n<think> and </think>\n\nmark",
        "Yes! <think>, then </think>.\n\nSo",
        "Two tags. <think>: begins, </think>: ends.\n\n",
        f"{'word ' * 9}<think>x",
    ],
)
@pytest.mark.parametrize("size", [1, 6, 100])
def test_an_answer_may_speak_of_tags(text: str, size: int) -> None:
    follower = Follower(THINK, *ANY)
    words = [follower.feed(text[at : at + size]) for at in range(0, len(text), size)]
    assert not any(words)
    assert not follower.thought


def test_the_closing_text_lets_the_answer_follow() -> None:
    assert THINK.closing == "\n</think>\n\n"
    harmony = FORMATS["harmony"]
    assert harmony.closing == "<|end|><|start|>assistant<|channel|>final<|message|>"
    text = f"{harmony.open}a{harmony.closing}42"
    assert (harmony.thought_of(text), harmony.answer_of(text)) == (f"{harmony.open}a", "42")
    assert text[answer_begin(text) :] == "42"


def test_a_prompt_that_ends_with_an_opening_tag_opens_the_thought() -> None:
    opened = opened_by("<|assistant|><think>\n")
    assert opened == OPENED
    assert opened_by("<seed:think>") == replace(FORMATS["seed"], opened=True)
    assert [opened_by(prompt) for prompt in ("", "What?", "<think>\n\n</think>\n\n", "a <think> b")] == [None] * 4
    own = thought_format("<a> </a>")
    assert opened_by("x<a>") is None
    assert opened_by("x<a>", (CUE, own)) == replace(own, opened=True)


def test_a_template_shows_the_tags_of_a_thought() -> None:
    assert tagged_with("<user>Q<assistant><think>\nMARK\n</think>\n\nA", "MARK") == THINK
    assert tagged_with("<|channel|>analysis<|message|>MARK<|end|>", "MARK") == FORMATS["harmony"]
    assert [tagged_with(text, "MARK") for text in ("", "MARK", "<think>MARK", "MARK</think>", "<think>a</think>")] == [
        None
    ] * 5
    assert named_in("{% if x %}[THINK]{{ y }}[/THINK]{% endif %}") == FORMATS["mistral"]
    assert [named_in(text) for text in ("", "<think>", "<think></think>[THINK][/THINK]")] == [None] * 3


def test_a_tag_switches_to_its_format_unless_the_thought_is_open() -> None:
    follower = Follower(*ANY)
    follower.feed("[THINK]a")
    assert (follower.format, follower.shown) == (FORMATS["mistral"], True)
    field = Follower(*ANY)
    field.enter_field()
    assert (field.feed("a"), field.shown) == ("a", False)
    beside = Follower(*ANY)
    beside.recognise("[THINK]\n")
    beside.recognise("a")
    assert (beside.format, beside.shown, beside.phase) == (FORMATS["mistral"], True, Phase.UNKNOWN)


def test_formats_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="until:CUE"):
        thought_format("other")
    with pytest.raises(InputError, match="no closing tag"):
        ThoughtFormat(close="")
    with pytest.raises(InputError, match="open from the start"):
        ThoughtFormat(open="")


@pytest.mark.parametrize("tags", ["<think> <think>", "\udcff b"])
def test_tags_that_cannot_work_are_refused(tags: str) -> None:
    with pytest.raises(InputError):
        thought_format(tags)


@pytest.mark.parametrize("name", [*FORMATS, "mistral-opened", "until:Answer:", "<a> </a>"])
def test_the_name_of_a_format_gives_the_format(name: str) -> None:
    format = thought_format(name)
    assert name_of(format) == name
    assert thought_format(name_of(format)) == format


def test_a_closing_tag_without_its_opening_tag_shows_an_opened_thought() -> None:
    assert closed_in("so 42.</think>42") == OPENED
    assert closed_in("<think>so 42.</think>42") is None
    # Phi ends each turn with this tag, and sentences are no tags.
    assert closed_in("42<|end|> Here is my response:") is None
