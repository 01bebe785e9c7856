"""One sequence of a batch: what is forced, what is counted, and which formats its thought may have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from justenough.errors import SignalMismatch
from justenough.integrations.transformers.sequence import Measured, Sequence, Stopping, require_temperature, stopping
from justenough.prompts import GENERAL
from justenough.signal.thought import FORMATS, THINK, ThoughtFormat, thought_format
from justenough.testing import CONFIDENT, UNSURE
from tests.unit.gateway.serving import calibration_of

WORDS = ["<end>", "<think>", "</think>", "Hm.\n\n", "So.\n\n", "42", "[THINK]", "[/THINK]", "Answer:", "</", "think>"]
END = frozenset((0,))


def shared(thought: ThoughtFormat | None = None, *, template: str | None = None, answer: str = "Answer:") -> Stopping:
    given = replace(calibration_of(1.0), prompts=replace(GENERAL, close="</think>", answer=answer))

    def encode(text: str) -> list[int]:
        return [number for number, word in enumerate(WORDS) if word in text and word not in ("</", "think>")]

    given = given if template is None else replace(given, prompts=None)
    return stopping(given, thought=thought, chat_template=template, encode=encode)


def sequence(common: Stopping, *, prompt: str = "") -> Sequence:
    return Sequence(common, prompt=prompt, texts=WORDS.__getitem__, ends=END)


def take(one: Sequence, *words: str, sure: bool = True) -> list[int | None]:
    """Take words until something is forced; returns what is forced after each."""
    forced = []
    for word in words:
        one.take(WORDS.index(word), Measured(-0.1, tuple(CONFIDENT if sure else UNSURE)))
        forced.append(one.forced)
    return forced


def test_the_closing_tag_and_the_cue_are_forced_in_turn_and_the_answer_is_counted_apart() -> None:
    one = sequence(shared())
    assert take(one, "<think>", "42", "Hm.\n\n") == [None, None, WORDS.index("</think>")]
    assert not one.measures
    assert take(one, "</think>", "Answer:", "42") == [WORDS.index("Answer:"), None, None]
    one.take(0, None)
    assert one.finished
    report = one.report()
    assert (report["decision"], report["thought_tokens"], report["probe_tokens"], report["tokens"]) == (
        "stopped",
        3,
        1,
        4,
    )


def test_an_unsure_thought_and_its_own_answer_run_to_their_end() -> None:
    one = sequence(shared())
    take(one, "<think>", "Hm.\n\n", sure=False)
    assert one.measures
    assert take(one, "</", "think>", "So.\n\n", "42", "Hm.\n\n") == [None] * 5
    assert not one.measures
    report = one.report()
    assert (report["decision"], report["reason"], report["tokens"], report["probe_tokens"]) == (
        "finished",
        "uncertain",
        7,
        0,
    )


def test_the_last_token_of_a_sequence_forces_nothing() -> None:
    one = sequence(shared())
    take(one, "<think>", "42")
    one.take(WORDS.index("Hm.\n\n"), Measured(-0.1, tuple(CONFIDENT)), last=True)
    assert (one.finished, one.forced, one.report()["decision"]) == (True, None, "finished")


@pytest.mark.parametrize(
    ("common", "prompt", "begin"),
    [
        (shared(), "<|assistant|>", "[THINK]"),
        (shared(FORMATS["mistral"]), "<|assistant|>", "[THINK]"),
        (shared(template="{{ '[THINK]' }} {{ '[/THINK]' }}"), "[THINK]", "42"),
    ],
    ids=["by its tag", "configured", "by the template and the prompt"],
)
def test_a_thought_is_closed_in_its_own_format(common: Stopping, prompt: str, begin: str) -> None:
    assert take(sequence(common, prompt=prompt), begin, "Hm.\n\n")[-1] == WORDS.index("[/THINK]")


def test_a_thought_until_a_cue_is_closed_by_the_cue() -> None:
    assert take(sequence(shared(thought_format("until:Answer:"))), "Hm.\n\n") == [WORDS.index("Answer:")]


def test_a_text_without_a_thought_is_never_cut() -> None:
    one = sequence(shared(THINK))
    assert take(one, "Hm.\n\n", "So.\n\n", *["42"] * 30, "Hm.\n\n")[-1] is None
    assert one.report()["reason"] == "no_thought"


def test_the_temperature_must_be_the_calibrations() -> None:
    given = calibration_of(1.0, temperature=0.6)
    require_temperature(given, 0.6)
    require_temperature(calibration_of(1.0), 0.0)
    for other in (0.0, float("nan")):
        with pytest.raises(SignalMismatch, match=rf"{other} is not the calibration's 0\.6 .*True, temperature=0\.6"):
            require_temperature(given, other)
    with pytest.raises(SignalMismatch, match="do_sample=False"):
        require_temperature(calibration_of(1.0, temperature=0.0), 0.6)
