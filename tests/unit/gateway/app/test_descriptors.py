"""Descriptors: the soft limit is raised, and where that is not enough fewer requests are served at a time."""

from __future__ import annotations

import logging
import resource

import pytest

from justenough.gateway.app.descriptors import SPARE, fitted
from justenough.gateway.settings import Limits


def limited(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> list[tuple[int, int]]:
    changes: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: changes.append(limits))
    return changes


def test_the_soft_limit_is_raised_as_far_as_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(max_concurrent=512, max_connections=4096)
    changes = limited(monkeypatch, 1024, 1_000_000)
    assert fitted(limits) is limits
    assert changes == [(4096 + 512 + SPARE, 1_000_000)]


@pytest.mark.parametrize("soft", [10_000, resource.RLIM_INFINITY])
def test_enough_descriptors_change_nothing(monkeypatch: pytest.MonkeyPatch, soft: int) -> None:
    limits = Limits()
    assert limited(monkeypatch, soft, resource.RLIM_INFINITY) == []
    assert fitted(limits) is limits


@pytest.mark.parametrize("hard", [3 + SPARE, 256, 1024])
def test_too_few_descriptors_bound_what_is_served(
    monkeypatch: pytest.MonkeyPatch, hard: int, caplog: pytest.LogCaptureFixture
) -> None:
    limited(monkeypatch, min(hard, 100), hard)
    with caplog.at_level(logging.WARNING):
        limits = fitted(Limits())
    assert f"only {hard} file descriptors" in caplog.text
    assert 1 <= limits.max_concurrent < limits.max_connections
    # Each request takes two, idle connections one.
    assert limits.max_concurrent + limits.max_connections + SPARE <= hard
