"""The trial: one request shows whether a model thinks, and in which format."""

from __future__ import annotations

import asyncio

import pytest

from justenough.grading import Problem
from justenough.runner import RunSettings
from justenough.runner.trial import Trial, try_thought
from justenough.signal.thought import FORMATS, ThoughtFormat, thought_format
from tests.fakes import ScriptedBackend


def tried(*texts: str, known: ThoughtFormat | None = None) -> tuple[Trial, ScriptedBackend]:
    backend = ScriptedBackend(lambda _: [(text, 0.1) for text in texts])
    problem = Problem(id="p", problem="7*6", target=None)
    return asyncio.run(try_thought(backend, problem, RunSettings(), known=known)), backend


@pytest.mark.parametrize("name", ["think", "mistral", "harmony", "seed", "granite"])
def test_an_opening_tag_shows_the_thought_and_ends_the_trial(name: str) -> None:
    format = FORMATS[name]
    trial, backend = tried(format.open, "So ", "it is 42.", format.close, "42")
    assert trial == Trial(format, 2)
    assert trial.shape == "streaming"
    assert backend.generated == 2
    assert backend.cancelled == [("p#trial", 1)]


def test_a_closing_tag_alone_shows_a_thought_that_the_prompt_opened() -> None:
    trial, _ = tried("So it is a long calculation that ends in ", "42.", "</thi", "nk>", "42")
    assert trial == Trial(FORMATS["think-opened"], 4)


@pytest.mark.parametrize("texts", [("42",), ("<think>", "\n\n", "</think>", "42"), ("a <b> is ", "42")])
def test_an_answer_without_a_thought_is_sequential(texts: tuple[str, ...]) -> None:
    trial, _ = tried(*texts)
    assert trial.thought is None
    assert trial.shape == "sequential"


def test_a_format_that_the_user_names_is_not_guessed() -> None:
    cue = thought_format("until:Answer:")
    assert tried("So it is 42. ", "Answer: 42", known=cue)[0] == Trial(cue, 1)
    assert tried("<think>", "so", known=FORMATS["mistral"])[0].thought is None
