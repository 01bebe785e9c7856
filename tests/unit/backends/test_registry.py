"""Backends by SPEC: entry points, options and errors."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

import pytest

from justenough.backends import registry
from justenough.backends.registry import GROUP, Options, open_backend, split_number
from justenough.errors import InputError, MissingExtra
from tests.fakes import ScriptedBackend

CALLS: list[tuple[str, Options]] = []


def open_scripted(model: str, options: Options) -> ScriptedBackend:
    """An opener of a third party."""
    CALLS.append((model, options))
    return ScriptedBackend(lambda request: [])


def open_without_its_library(model: str, options: Options) -> ScriptedBackend:
    """An opener whose optional dependency is missing."""
    raise MissingExtra("some_library", extra="some")


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two backends of a third party are installed, and no others."""
    names = {"scripted": "open_scripted", "bare": "open_without_its_library"}
    points = [EntryPoint(name, f"{__name__}:{function}", GROUP) for name, function in names.items()]
    monkeypatch.setattr(registry, "entry_points", lambda *, group: points if group == GROUP else [])
    CALLS.clear()


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize(
    ("spec", "model"), [("scripted", ""), ("scripted:", ""), ("scripted:a", "a"), ("scripted:a:b@1", "a:b@1")]
)
def test_the_opener_gets_the_part_after_the_first_colon(spec: str, model: str) -> None:
    options = Options(base_url="http://x", concurrency=3, prompts="general", threads=2)
    assert isinstance(
        open_backend(spec, base_url="http://x", concurrency=3, prompts="general", threads=2), ScriptedBackend
    )
    assert [(model, options)] == CALLS


@pytest.mark.usefixtures("third_party")
def test_without_options_the_defaults_are_used() -> None:
    open_backend("scripted")
    assert [("", Options(base_url=None, concurrency=None, prompts=None, threads=1))] == CALLS


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize("spec", ["", ":", "gpt-4o", "Scripted:x", "openai:m"])
def test_an_unknown_name_lists_the_installed_backends(spec: str) -> None:
    with pytest.raises(InputError, match=r"use one of bare\[:…\], scripted\[:…\]") as error:
        open_backend(spec)
    assert repr(spec) in str(error.value)


@pytest.mark.usefixtures("third_party")
def test_a_missing_dependency_names_the_extra() -> None:
    with pytest.raises(MissingExtra, match=r"justenough\[some\]"):
        open_backend("bare:x")


def test_the_built_in_backends_enter_by_the_same_group() -> None:
    names = {point.name for point in entry_points(group=GROUP)}
    assert names >= {"embedded", "openai", "llamacpp", "hf", "adadec", "calm", "deebert", "replay"}
    for point in entry_points(group=GROUP):
        assert callable(point.load())


def test_a_name_may_end_in_a_number() -> None:
    assert split_number("") == ("", None)
    assert split_number("repaired") == ("repaired", None)
    assert split_number("repaired@0.25") == ("repaired", 0.25)
    assert split_number("a@b@1") == ("a@b", 1.0)
    assert split_number("@1e-3") == ("", 0.001)
    with pytest.raises(InputError, match="'much' is not a number"):
        split_number("embedded@much")
    with pytest.raises(InputError, match="'' is not a number"):
        split_number("embedded@")
