"""Texts for layer exits: true, and apart from the questions that certify and test."""

from __future__ import annotations

from benchmarks.real.capitals import CAPITALS
from benchmarks.real.exit_texts import QUESTIONS, conversation, files

PAIRS = {
    tuple(name.replace("_", " ").removeprefix("the ") for name in pair.split(":"))
    for pairs in CAPITALS.values()
    for pair in pairs.split()
}


def test_every_text_is_true() -> None:
    for row in files()["texts"]:
        answer = row["messages"][1]["content"].rstrip(".")
        if answer.startswith("The capital of "):
            country, _, capital = answer.removeprefix("The capital of ").partition(" is ")
        else:
            capital, _, country = answer.partition(" is the capital of ")
        assert (country, capital) in PAIRS, answer


def test_no_question_is_in_two_files() -> None:
    rows = files()
    assert len(rows["test"]) == len(rows["certify"]) == QUESTIONS
    texts = [row["messages"][0]["content"] for row in rows["texts"]]
    others = [conversation(row)["messages"][0]["content"] for name in ("test", "certify") for row in rows[name]]
    assert len({*texts, *others}) == len(texts) + len(others)
