"""Traces as a table with one row for each step, for Arrow, pandas and Polars."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Final

from justenough.errors import MissingExtra
from justenough.trace.types import Trace

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

_ROWS: Final = 10_000
"""Rows that become Arrow arrays together, so that a large file does not become Python objects all at once."""


def arrow_table(traces: Iterable[Trace]) -> pa.Table:
    """One row for each step of each trace; `bits` is the step's signal in bits, `number` counts steps from 1."""
    import pyarrow as pa

    text, whole, real = pa.string(), pa.int64(), pa.float64()
    schema = pa.schema(
        [(name, text) for name in ("id", "task", "family", "group", "model", "shape", "problem", "target")]
        + [("number", whole), ("text", text), ("answer", text), ("correct", pa.bool_()), ("tokens", whole)]
        + [("bits", real), ("coverage", real), ("finish", text), ("latency_s", real), ("entropies", pa.list_(real))]
    )
    tables: list[pa.Table] = []
    rows: list[dict[str, object]] = []
    for trace in traces:
        head = {name: getattr(trace, name) for name in schema.names[:8]}
        for number, step in enumerate(trace.steps, 1):
            bits = step.token_bits(trace.signal)
            rows.append(
                head
                | {name: getattr(step, name) for name in ("text", "answer", "correct", "tokens", "finish", "latency_s")}
                | {"number": number, "bits": step.bits(trace.signal), "coverage": step.coverage()}
                | {"model": step.model or trace.model, "entropies": None if bits is None else list(bits)}
            )
        if len(rows) >= _ROWS:
            tables.append(pa.Table.from_pylist(rows, schema=schema))
            rows = []
    return pa.concat_tables([*tables, pa.Table.from_pylist(rows, schema=schema)])


def pandas_frame(traces: Iterable[Trace]) -> pd.DataFrame:
    """The rows of `arrow_table` as a pandas data frame; raises `MissingExtra` if pandas is not installed."""
    _require("pandas")
    frame: pd.DataFrame = arrow_table(traces).to_pandas()
    return frame


def polars_frame(traces: Iterable[Trace]) -> pl.DataFrame:
    """The rows of `arrow_table` as a Polars data frame; raises `MissingExtra` if Polars is not installed."""
    frame: pl.DataFrame = _require("polars").from_arrow(arrow_table(traces))
    return frame


def _require(library: str) -> ModuleType:
    try:
        return import_module(library)
    except ModuleNotFoundError as error:
        raise MissingExtra(library) from error
