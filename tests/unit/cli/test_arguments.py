"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from justenough.backends.protocol import Backend
from justenough.cli import arguments
from justenough.errors import BudgetError, InputError
from justenough.runner import Branching
from justenough.trace.files import TraceFile, write_traces
from tests.builders import trace
from tests.unit.cli.invoke import run


def parsed(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    arguments.add_model(parser)
    return parser.parse_args(["--model", *options])


def test_defaults_depend_on_the_model() -> None:
    embedded = arguments.run_settings(parsed("embedded:repaired"), steps=4)
    other = arguments.run_settings(parsed("openai:qwen3-8b"), steps=4)
    assert (embedded.temperature, embedded.max_tokens) == (0.8, 512)
    assert (other.temperature, other.max_tokens) == (0.6, 4096)


def test_given_options_win_over_defaults() -> None:
    settings = arguments.run_settings(
        parsed("embedded", "--temperature", "0", "--max-tokens", "7", "--seed", "3", "--top-k", "5"), steps=2
    )
    assert (settings.temperature, settings.max_tokens, settings.seed, settings.top_k) == (0, 7, 3, 5)
    assert settings.max_steps == 2


@pytest.mark.parametrize("value", ["-1", "x", "1.5", str(2**63)])
@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "x"),
        ("report", "x", "--out", "x.html"),
        ("calibrate", "x", "--out", "c.json"),
        ("budget", "x", "--total", "9"),
        ("collect", "--model", "embedded", "--tasks", "sum", "--out", "o.jsonl"),
        ("solve", "41+93-28"),
        ("setup", "--upstream", "http://127.0.0.1:1"),
        ("exits", "train", "--model", "x", "--texts", "x"),
    ],
)
def test_a_seed_is_a_whole_number_from_0_on(command: tuple[str, ...], value: str) -> None:
    result = run(*command, "--seed", value)
    assert result.code == 2
    assert result.error == f"justenough {command[0]}: --seed is {value} (a whole number, 0 or more)"


def test_an_option_that_the_model_does_not_take_is_refused() -> None:
    result = run("solve", "41+93-28", "--base-url", "http://127.0.0.1:1")
    assert (result.code, "embedded is not behind a server" in result.error) == (2, True)
    result = run("solve", "41+93-28", "--prompts", "general")
    assert (result.code, "embedded has its own prompts" in result.error) == (2, True)
    assert run("solve", "41+93-28", "--prompts", "embedded").code == 0


@pytest.mark.parametrize("value", ["-1", "0", "x"])
@pytest.mark.parametrize(
    "command",
    [
        ("collect", "--model", "embedded", "--tasks", "sum", "--out", "o.jsonl"),
        ("diagnose", "--model", "embedded", "--tasks", "sum"),
        ("setup", "--upstream", "http://127.0.0.1:1"),
    ],
)
def test_at_least_one_problem_runs_at_a_time(command: tuple[str, ...], value: str) -> None:
    result = run(*command, "--concurrency", value)
    assert (result.code, result.error.endswith("(a whole number, 1 or more)")) == (2, True)


def test_extend_is_for_sequential_steps_only() -> None:
    assert arguments.run_settings(parsed("embedded", "--extend", "vote"), steps=2).extend == "vote"
    assert arguments.run_settings(parsed("embedded", "--extend", "branch"), steps=2).branching == Branching()
    gated = parsed("embedded", "--extend", "branch", "--branching", "entropy-gated:1:4")
    assert arguments.run_settings(gated, steps=2).branching == Branching(threshold=1.0, width=4, by_paragraph=True)
    with pytest.raises(InputError, match="is for branches"):
        arguments.run_settings(parsed("embedded", "--branching", "eager"), steps=2)
    streaming = arguments.run_settings(parsed("embedded", "--extend", "vote", "--shape", "streaming"), steps=2)
    assert (streaming.shape, streaming.extend) == ("streaming", "refine")


class Fake:
    """A backend that remembers whether it is open."""

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.open = True

    async def close(self) -> None:
        """Close it."""
        self.open = False


@pytest.mark.parametrize("fails", [False, True])
def test_both_backends_are_closed_in_any_case(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Fake] = []

    def opening(spec: str, **options: object) -> Fake:
        hf = {"exits": None, "leave": None, "dtype": "float32", "device": "cpu"}
        assert options == {"base_url": "http://x", "concurrency": 3, "prompts": None, "thought": None, **hf}
        opened.append(Fake(spec))
        return opened[-1]

    monkeypatch.setattr("justenough.backends.registry.open_backend", opening)

    async def use() -> AsyncIterator[tuple[Backend, Backend | None]]:
        options = parsed("a:1", "--cascade", "b:2", "--base-url", "http://x", "--concurrency", "3")
        async with arguments.backends(options) as pair:
            assert all(one.open for one in opened)
            yield pair
            if fails:
                raise InputError("it failed")

    async def run() -> None:
        async for backend, cascade in use():
            assert isinstance(backend, Fake)
            assert isinstance(cascade, Fake)
            assert [backend, cascade] == opened

    if fails:
        with pytest.raises(InputError, match="it failed"):
            asyncio.run(run())
    else:
        asyncio.run(run())
    assert [(one.spec, one.open) for one in opened] == [("a:1", False), ("b:2", False)]


def test_both_formats_are_read_again_on_each_pass(tmp_path: Path) -> None:
    for name in ("t.parquet", "t.jsonl"):
        path = tmp_path / name
        write_traces([trace(id="a"), trace(id="b")], path)
        options = argparse.Namespace(traces=path, skip_bad=False)
        opened = arguments.open_traces(options)
        assert isinstance(opened, TraceFile)
        for _ in range(2):
            assert [one.id for one in opened] == ["a", "b"]


def test_budgets_are_numbers_above_0() -> None:
    assert arguments.budget_of("1.5") == 1.5
    assert arguments.whole_budget("12") == 12
    for text in ("0", "-1", "nan", "inf", "x", ""):
        with pytest.raises(BudgetError, match="the budget is"):
            arguments.budget_of(text)
    with pytest.raises(BudgetError, match="a whole number"):
        arguments.whole_budget("1.5")
