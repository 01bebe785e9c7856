"""Files of traces that the tests of the commands share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from justenough.trace.files import write_traces
from tests.builders import population
from tests.reports import few_draws
from tests.unit.cli.invoke import run


@pytest.fixture(scope="package", autouse=True)
def quick() -> Iterator[None]:
    with few_draws():
        yield


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    """150 problems of two steps, whose signal separates."""
    path = tmp_path / "traces.parquet"
    write_traces(population(150, seed=2), path)
    return path


@pytest.fixture
def blind(tmp_path: Path) -> Path:
    """400 problems whose signal does not separate."""
    path = tmp_path / "blind.jsonl"
    write_traces(population(400, seed=1, right=0.5, wrong=0.5), path)
    return path


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled traces of the embedded model, two steps each."""
    out = tmp_path_factory.mktemp("embedded") / "fit.parquet"
    command = ["collect", "--model", "embedded", "--tasks", "arithmetic-calibration", "--limit", 24, "--steps", 2]
    assert run(*command, "--out", out, "--json").code == 0
    return out
