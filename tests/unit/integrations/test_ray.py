"""What Ray's workers compute, without Ray."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from justenough.calibration.calibration import Calibration
from justenough.errors import InputError, ModelMismatch, TraceFormatError
from justenough.gate import GateSettings, replay
from justenough.integrations.ray import Asker, score_table, score_traces
from justenough.prompts import GENERAL
from justenough.testing import MockUpstream
from justenough.trace import Trace
from justenough.trace.files import TraceFile, write_traces
from tests.builders import SIGNAL, step, trace
from tests.contract.faulty import serving
from tests.unit.gateway.serving import calibration_of


def recorded(n: int = 20) -> list[Trace]:
    """Traces of one to four steps with log-probabilities."""
    rng = np.random.default_rng(1)

    def rows() -> list[list[float]]:
        shares = rng.dirichlet(np.full(20, 0.1), size=int(rng.integers(1, 40)))
        logs: list[list[float]] = np.log(shares + 1e-12).clip(max=0).tolist()
        return logs

    steps = [[step(top_logprobs=rows()) for _ in range(1 + at % 4)] for at in range(n)]
    return [trace(*each, id=f"p-{at}") for at, each in enumerate(steps)]


def calibrated(model: str) -> Calibration:
    """Its pooling is not that of the traces."""
    signal = replace(SIGNAL, pooling="maximum")
    return replace(calibration_of(2.6, model=model, shape="sequential", decide="every"), signal=signal)


def test_a_table_gives_the_rows_of_its_file(tmp_path: Path) -> None:
    write_traces(recorded(), file := tmp_path / "traces.parquet")
    assert score_table(pq.read_table(file)).equals(TraceFile(file).to_arrow())


def test_a_calibration_adds_the_decisions_of_replay(tmp_path: Path) -> None:
    traces = recorded()
    write_traces(traces, file := tmp_path / "traces.parquet")
    calibration = calibrated("model")
    scored = score_table(pq.read_table(file), calibration=calibration).to_pylist()
    decided = [(row["id"], row["number"], row["bits"], row["action"]) for row in scored if row["action"] is not None]
    pooled = [replace(each, signal=calibration.signal) for each in traces]
    assert decided == [
        (each.id, decision.step, decision.entropy, str(decision.action))
        for each in pooled
        for decision in replay(each, GateSettings.of(calibration))
    ]
    assert len(decided) < len(scored) == sum(len(each.steps) for each in traces)


def test_a_table_of_another_model_or_without_traces_is_refused(tmp_path: Path) -> None:
    write_traces(recorded(1), file := tmp_path / "traces.parquet")
    with pytest.raises(ModelMismatch, match="p-0"):
        score_table(pq.read_table(file), calibration=calibrated("other"))
    with pytest.raises(TraceFormatError, match="model is missing"):
        score_table(pa.table({"id": ["a"]}))


def test_a_path_in_place_of_a_calibration_is_refused() -> None:
    for score in cast("tuple[Callable[..., object], ...]", (score_table, score_traces)):
        with pytest.raises(InputError, match=r"'c.json' is no calibration \(justenough.load_calibration"):
            score(pa.table({}), calibration="c.json")


def test_a_table_without_rows_has_the_columns_of_any_other(tmp_path: Path) -> None:
    write_traces(recorded(), file := tmp_path / "traces.parquet")
    table = pq.read_table(file)
    for calibration in (None, calibrated("model")):
        empty = score_table(table.slice(0, 0), calibration=calibration)
        assert empty.num_rows == 0
        assert empty.schema == score_table(table, calibration=calibration).schema


def test_a_table_in_place_of_a_dataset_is_refused() -> None:
    with pytest.raises(InputError, match="Table is no Dataset of Ray") as refused:
        score_traces(pa.table({"id": ["a"]}))
    assert "ray.data.from_arrow" in refused.value.hint


def test_an_actor_keeps_the_columns_and_says_which_request_failed() -> None:
    problems = pa.table({"problem": ["6*7", "7*8"], "answer": ["42", "56"], "reply": ["old", "old"]})

    async def asked(**body: str | int) -> pa.Table:
        async with MockUpstream() as upstream:
            asker = Asker(f"{upstream.url}/v1", dict(body), "none", 2)
            replies = await asyncio.to_thread(asker, problems)
            sent = sorted(json.loads(request.body)["messages"][0]["content"] for request in upstream.completions)
            assert sent == ["6*7", "7*8"]
            return replies

    good = asyncio.run(asked(model="mock")).to_pylist()
    assert [(row["problem"], row["answer"]) for row in good] == [("6*7", "42"), ("7*8", "56")]
    for row in good:
        assert row["reply"].endswith("The answer is 42.")
        assert json.loads(row["reply_json"])["usage"]["completion_tokens"] == row["reply_tokens"] > 0
        assert row["reply_error"] is None
    bad = asyncio.run(asked(model="mock", temperature=3)).to_pylist()
    assert [row["reply"] for row in bad] == [None, None]
    assert all("400" in row["reply_error"] for row in bad)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", "<html>busy</html>"),
        ("application/json", '{"error": "no model"}'),
        ("application/json", '{"choices": []}'),
        ("application/json", '{"choices": [{}]}'),
        ("application/json", '{"choices": [{"message": {"content": "4'),
    ],
)
def test_a_reply_of_another_form_fails_only_its_own_row(kind: str, body: str) -> None:
    good = '{"choices": [{"message": {"content": "42"}}], "justenough": {"decision": "stopped"}}'

    def answer(kind: str, body: str) -> bytes:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close"
        return f"{head}\r\n\r\n{body}".encode()

    async def replies() -> list[dict[str, object]]:
        async with serving(answer(kind, body), answer("application/json", good)) as (url, _):
            asker = Asker(url, {"model": "m"}, "none", 1)
            rows: pa.Table = await asyncio.to_thread(asker, pa.table({"problem": ["6*7", "7*6"]}))
            return list(rows.to_pylist())

    bad, other = asyncio.run(replies())
    assert str(bad.pop("reply_error")).startswith("the reply is no chat completion")
    assert {name for name, value in bad.items() if value is not None} == {"problem"}
    assert (other["reply"], other["reply_decision"], other["reply_json"]) == ("42", "stopped", good)


def test_the_rows_of_a_collected_file_are_scored(tmp_path: Path) -> None:
    path = tmp_path / "collected.parquet"
    write_traces([replace(each, prompts=GENERAL) for each in recorded(4)], path)
    assert score_table(pq.read_table(path)).num_rows == TraceFile(path).to_arrow().num_rows
