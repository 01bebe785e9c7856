"""Kinds of bits of the same tokens, and the table that compares them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.real import bits
from benchmarks.real.bits import BITS, KINDS, RECORDED, after_temperature, compare, table
from benchmarks.real.tables import PAGE


def logprobs(rng: np.random.Generator, spread: float, vocabulary: int = 40) -> bits.Floats:
    logits = rng.normal(0, spread, (12, vocabulary))
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def test_even_probabilities_have_known_bits() -> None:
    block = np.full((3, 32), math.log(1 / 32))
    means = {name: float(kind(block).mean()) for name, kind in KINDS.items()}
    assert means["whole vocabulary"] == pytest.approx(5)
    assert means["whole vocabulary after temperature 0.7"] == pytest.approx(5)
    assert means["top-20 renormalised (the paper's)"] == pytest.approx(math.log2(20))
    assert means["top-5 renormalised"] == pytest.approx(math.log2(5))
    rest = 27 / 32
    assert means["top-5, the rest as one symbol"] == pytest.approx(5 * 5 / 32 - rest * math.log2(rest))


def test_a_temperature_below_one_sharpens() -> None:
    block = np.log(np.array([[0.6, 0.3, 0.1]]))
    sharp = np.exp(after_temperature(block, 0.5))
    assert sharp.sum() == pytest.approx(1)
    assert sharp[0, 0] == pytest.approx(0.36 / 0.46)


def rows_of(problems: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for number in range(problems):
        block = logprobs(rng, 4 if number % 2 else 1)
        means = {name: float(kind(block).mean()) for name, kind in KINDS.items()}
        rows.append({"id": str(number), "correct": number % 2 == 1, RECORDED: means["top-5 renormalised"], **means})
    return rows


def test_the_kinds_are_compared_with_the_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bits, "RESAMPLES", 50)
    pq.write_table(pa.Table.from_pylist(rows_of(20)), tmp_path / "m.t.parquet")
    read = pq.read_table(tmp_path / "m.t.parquet")
    columns = {name: read[name].to_numpy(zero_copy_only=False) for name in read.column_names if name != "id"}
    rows = {row.kind: row for row in compare(columns)}
    assert list(rows) == [*KINDS, RECORDED]
    papers = rows["top-20 renormalised (the paper's)"]
    assert papers.rank_correlation == pytest.approx(1)
    assert (papers.auroc, papers.difference) == (1.0, None)
    assert rows[RECORDED].difference == rows["top-5 renormalised"].difference
    assert rows["whole vocabulary"].mean >= papers.mean
    assert table(tmp_path / "m.t.parquet")[0].startswith("| m.t, n = 20 |")


def test_the_tables_of_the_page_are_those_of_the_committed_files() -> None:
    page = PAGE.read_text(encoding="utf-8")
    paths = sorted(BITS.glob("*.parquet"))
    assert paths
    for path in paths:
        assert "\n".join(table(path)) in page
