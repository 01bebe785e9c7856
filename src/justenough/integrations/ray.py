"""Stages of Ray Data: score recorded traces, and ask a gateway, on any number of workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Final

import msgspec

from justenough.calibration.calibration import Calibration, require_calibration
from justenough.errors import InputError, MissingExtra
from justenough.files import Json, shown
from justenough.gate import Decision, GateSettings, replay
from justenough.trace import Trace, trace_from_json
from justenough.trace.frames import arrow_table
from justenough.trace.parquet import table_objects
from justenough.wire.chunks import Chunk

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

_PATIENCE_S: Final = 3600.0
"""Seconds that a request may take: the server of an answer that is not streamed sends nothing before its end."""
_COLUMNS: Final = {
    "reply": "string",
    "reply_tokens": "int64",
    "reply_decision": "string",
    "reply_json": "string",
    "reply_error": "string",
}
"""The new columns of `ask_gateway` with their Arrow types."""


def score_traces(traces: Dataset, *, calibration: Calibration | None = None) -> Dataset:
    """A row for each step of the traces, as `score_table` computes it; each block of the data is scored on its own.

    `traces` has the rows of a trace file: `ray.data.read_parquet("traces.parquet")`. Raises `InputError`.
    """
    if calibration is not None:
        require_calibration(calibration)
    _require_dataset(traces)
    return traces.map_batches(
        score_table,
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        fn_kwargs={"calibration": calibration},
    )


def score_table(table: pa.Table, *, calibration: Calibration | None = None) -> pa.Table:
    """The rows of `TraceFile.to_arrow` for a table of traces: one for each step.

    With a calibration, `bits` has its pooling, and the columns `action` and `reason` have the gate's decisions, which
    are null after the stop. Raises `TraceFormatError`, `SignalMismatch`, `ModelMismatch`.
    """
    traces = [trace_from_json(row) for row in table_objects(table)]
    if calibration is None:
        return arrow_table(traces)
    require_calibration(calibration)
    settings = GateSettings.of(calibration)
    for trace in traces:
        calibration.check(trace)
    pooled = [replace(trace, signal=trace.signal.pooled_as(settings.signal)) for trace in traces]
    decisions = [decision for trace in pooled for decision in _decisions(trace, settings)]
    scored = arrow_table(pooled)
    for name in ("action", "reason"):
        column = [None if decision is None else str(getattr(decision, name)) for decision in decisions]
        scored = _with_column(scored, name, column)
    return scored


def _decisions(trace: Trace, settings: GateSettings) -> list[Decision | None]:
    """The gate's decision for each step; None after its stop."""
    return list(islice(chain(replay(trace, settings), repeat(None)), len(trace.steps)))


def _with_column(table: pa.Table, name: str, values: Sequence[object], *, kind: str = "string") -> pa.Table:
    import pyarrow as pa

    return table.append_column(name, pa.array(values, pa.type_for_alias(kind)))


def ask_gateway(
    problems: Dataset,
    url: str,
    *,
    body: Mapping[str, Json],
    key: str = "none",
    workers: int = 2,
    in_flight: int = 16,
) -> Dataset:
    """Ask a gateway, or any server with OpenAI's chats, each text in the column `problem`; a pool of actors asks.

    `body` has the other members of a request: `model`, `temperature`, … Each of the `workers` has at most `in_flight`
    requests under way. The new columns are `reply` (the text), `reply_tokens`, `reply_decision` (of the gateway),
    `reply_json` (the whole reply) and `reply_error`: the row of a request that failed has only this one. A busy server
    is asked again. Raises `InputError`, `MissingExtra`.
    """
    try:
        import openai  # noqa: F401
        from ray.data import ActorPoolStrategy
    except ImportError as error:
        raise MissingExtra(error.name or "ray", extra="ray") from error
    _require_dataset(problems)
    if "problem" not in (problems.columns() or ()):
        raise InputError("the data have no column problem", hint="rename_columns({YOURS: 'problem'})")
    if workers < 1 or in_flight < 1:
        raise InputError(f"workers {workers}, in_flight {in_flight}", hint="each must be at least 1")
    return problems.map_batches(
        Asker,
        fn_constructor_args=(url, dict(body), key, in_flight),
        batch_size=4 * in_flight,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=workers),
    )


def _require_dataset(data: Dataset) -> None:
    if not hasattr(data, "map_batches"):
        raise InputError(
            f"{type(data).__name__} is no Dataset of Ray",
            hint="ray.data.from_arrow(TABLE); score_table(TABLE) works without Ray",
        )


class _Report(msgspec.Struct):
    """The part of the gateway's report that is needed."""

    decision: str | None = None


class _Reply(Chunk):
    """A whole reply, of the gateway or of another server."""

    justenough: _Report | None = None


class Asker:
    """Asks a server, from one actor; `__call__` takes and returns a batch of `ask_gateway`."""

    def __init__(self, url: str, body: dict[str, Json], key: str, in_flight: int) -> None:
        import openai

        # It asks again after 429, 5xx and lost connections, and waits as long as the server says.
        self._client = openai.OpenAI(base_url=url, api_key=key, max_retries=8, timeout=_PATIENCE_S)
        self._body = body
        self._threads = ThreadPoolExecutor(in_flight)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """The rows with a reply or an error each."""
        replies = list(self._threads.map(self._ask, rows.column("problem").to_pylist()))
        rows = rows.select([name for name in rows.column_names if name not in _COLUMNS])
        for name, kind in _COLUMNS.items():
            rows = _with_column(rows, name, [reply.get(name) for reply in replies], kind=kind)
        return rows

    def _ask(self, problem: str) -> dict[str, object]:
        import openai

        body = {**self._body, "messages": [{"role": "user", "content": problem}]}
        try:
            text = self._client.post("/chat/completions", body=body, cast_to=str)
        except openai.OpenAIError as error:
            return {"reply_error": str(error)}
        try:
            reply = msgspec.json.decode(text, type=_Reply)
        except msgspec.DecodeError as error:
            return {"reply_error": f"the reply is no chat completion: {error}: {shown(text)}"}
        if not reply.choices or (message := reply.choices[0].message) is None:
            return {"reply_error": f"the reply is no chat completion: {shown(text)}"}
        return {
            "reply": message.content,
            "reply_tokens": reply.usage.completion_tokens if reply.usage else None,
            "reply_decision": reply.justenough.decision if reply.justenough else None,
            "reply_json": text,
        }
