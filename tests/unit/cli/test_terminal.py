"""Text for people: numbers, tables, escapes, colour and progress."""

from __future__ import annotations

import io
import json

import pytest

from justenough.cli.terminal import (
    ProgressLine,
    SpendingLine,
    has_colour,
    print_json,
    safe,
    say,
    shade,
    show,
)


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def test_results_and_notes_go_to_their_streams(capsys: pytest.CaptureFixture[str]) -> None:
    show("result \x1b[2J")
    say("note \x9b2J")
    result = capsys.readouterr()
    assert (result.out, result.err) == ("result �[2J\n", "note �2J\n")


@pytest.mark.parametrize("char", ["\x1b", "\x07", "\x9b", "\r", "\x00", "\u202e", "\u2028", "\ud800"])
def test_no_character_can_control_the_terminal(char: str) -> None:
    assert safe(f"a{char}b\n\té") == "a�b\n\té"


def test_json_is_escaped_and_still_the_same_value(capsys: pytest.CaptureFixture[str]) -> None:
    model = "é \x1b[2J \x9b \u202e \U000e0001 \n"
    print_json({"value": {"model": model}, "n": 1})
    result = capsys.readouterr().out
    assert result.endswith("\n")
    assert result[:-1].isprintable()
    assert "é" in result
    assert json.loads(result) == {"value": {"model": model}, "n": 1}


def test_nan_is_never_printed_as_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json({"x": float("nan")})


def test_colour_needs_a_terminal_and_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert has_colour(Terminal())
    assert not has_colour(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not has_colour(Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "")
    assert not has_colour(Terminal())


def test_tokens_with_more_bits_are_redder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    grounds = [shade("x", bits, Terminal()) for bits in (0.1, 0.5, 1.9, 50.0)]
    assert len(set(grounds)) == 3
    assert grounds[-1] == "\x1b[48;5;196m\x1b[38;5;16mx\x1b[0m" == grounds[-2]
    assert [shade("x", bits, Terminal()) for bits in (None, 0.01)] == ["x", "x"]
    assert shade("x", 1.0, io.StringIO()) == "x"


def test_progress_in_a_pipe_is_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine("collect")
    for outcome in range(101):
        line.update(done=outcome, total=100, steps=0, tokens=0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[0] == "collect: 0/100 problems"
    assert lines[-1] == "collect: 100/100 problems"


def test_progress_counts_only_fresh_problems_in_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    line = ProgressLine("collect")
    line.update(done=50, total=100, steps=0, tokens=0)
    now[0] += 10
    line.update(done=60, total=100, steps=10, tokens=2000)
    # 10 problems took 10 s, so 40 more take 40 s; the 50 problems of an earlier run took no time.
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "collect: 60/100 problems, 10 steps, 2,000 tokens, 200 tokens/s, 40 s left"
    )


def test_progress_on_a_terminal_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    line = ProgressLine("collect")
    for outcome in (0, 1, 2):
        line.update(done=outcome, total=2, steps=0, tokens=0)
    assert terminal.getvalue().count("\n") == 1
    assert terminal.getvalue().endswith("\n")
    assert terminal.getvalue().count("\r\x1b[K") == 3


def test_spending_ends_its_line_once(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    line = SpendingLine("tokens")
    line.update(spent=1200, total=4000, answered=3, expected=0.5)
    assert terminal.getvalue() == "\r\x1b[Kbudget: 1,200/4,000 tokens, 3 problems answered, 50.0 % expected right"
    line.close()
    line.close()
    assert terminal.getvalue().count("\n") == 1
