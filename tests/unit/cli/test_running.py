"""The settings and the models that the options of a run describe."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from justenough.backends.protocol import Backend
from justenough.cli import arguments, running
from justenough.errors import InputError
from justenough.runner import Branching
from tests.unit.cli.invoke import run


def parsed(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    arguments.add_model(parser)
    return parser.parse_args(["--model", *options])


def test_defaults_depend_on_the_model() -> None:
    embedded = running.run_settings(parsed("embedded:repaired"), steps=4)
    other = running.run_settings(parsed("openai:qwen3-8b"), steps=4)
    assert (embedded.temperature, embedded.max_tokens) == (0.8, 512)
    assert (other.temperature, other.max_tokens) == (0.6, 4096)


def test_given_options_win_over_defaults() -> None:
    settings = running.run_settings(
        parsed("embedded", "--temperature", "0", "--max-tokens", "7", "--seed", "3", "--top-k", "5"), steps=2
    )
    assert (settings.temperature, settings.max_tokens, settings.seed, settings.top_k) == (0, 7, 3, 5)
    assert settings.max_steps == 2


def test_an_option_that_the_model_does_not_take_is_refused() -> None:
    result = run("solve", "41+93-28", "--base-url", "http://127.0.0.1:1")
    assert (result.code, "embedded is not behind a server" in result.error) == (2, True)
    result = run("solve", "41+93-28", "--prompts", "general")
    assert (result.code, "embedded has its own prompts" in result.error) == (2, True)
    assert run("solve", "41+93-28", "--prompts", "embedded").code == 0
    hint = "(leave --dtype and --device out, or --model hf:PATH)"
    for model in ("embedded", "adadec", "openai:m", "replay:x", "llamacpp:x"):
        for option in (("--dtype", "bfloat16"), ("--device", "cuda")):
            result = run("solve", "41+93-28", "--model", model, *option)
            assert (result.code, result.error.endswith(hint)) == (2, True), result.error
    for model in ("hf:/nowhere", "calm:/nowhere", "deebert:/nowhere@1", "adadec:hf:/nowhere@1"):
        assert hint not in run("solve", "41+93-28", "--model", model, "--dtype", "bfloat16").error


def test_an_option_that_does_nothing_in_this_shape_is_named(tmp_path: Path) -> None:
    solve = ("solve", "41+93-28")
    assert "warning: --splitter does nothing" in run(*solve, "--splitter", "sentence").err
    assert "warning: --extend does nothing" in run(*solve, "--shape", "streaming", "--extend", "vote").err
    assert (
        run(*solve, "--extend", "vote").err == run(*solve, "--shape", "streaming", "--splitter", "sentence").err == ""
    )
    embedded = ("--model", "embedded", "--tasks", "sum", "--limit", 2, "--splitter", "sentence")
    assert run("diagnose", *embedded).err.count("warning: --splitter does nothing") == 1
    for budget in ((), ("--budget", 200)):
        err = run("collect", *embedded, *budget, "--out", tmp_path / f"o{len(budget)}.jsonl").err
        assert err.count("warning: --splitter does nothing") == 1


def test_extend_is_for_sequential_steps_only() -> None:
    assert running.run_settings(parsed("embedded", "--extend", "vote"), steps=2).extend == "vote"
    assert running.run_settings(parsed("embedded", "--extend", "branch"), steps=2).branching == Branching()
    gated = parsed("embedded", "--extend", "branch", "--branching", "entropy-gated:1:4")
    assert running.run_settings(gated, steps=2).branching == Branching(threshold=1.0, width=4, by_paragraph=True)
    with pytest.raises(InputError, match="is for branches"):
        running.run_settings(parsed("embedded", "--branching", "eager"), steps=2)
    streaming = running.run_settings(parsed("embedded", "--extend", "vote", "--shape", "streaming"), steps=2)
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
        async with running.backends(options) as pair:
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
