import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from justenough.errors import InputError, TraceFormatError
from justenough.signal.signal import Signal
from justenough.trace import Probe, Trace, trace_to_json
from justenough.trace.blocks import Block
from justenough.trace.files import TraceFile, read_traces, write_traces
from justenough.trace.parquet import parquet_batches
from tests.builders import SIGNAL, step, trace

GOOD = json.dumps({"id": "a", "model": "m", "steps": [{"tokens": 3, "answer": "1"}]})


def test_a_bad_line_gives_file_line_and_reason_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    bad = [b"{nonsense", b"\xff\xfe", b'{"id": "b"}', b"[" * 100_000, b'{"id": ' + b"9" * 5000 + b"}", b"3"]
    path.write_bytes(b"\n".join([GOOD.encode(), *bad, b"", b"  ", GOOD.encode()]))
    result = read_traces(path, skip_bad=True)
    assert [read.id for read in result.traces] == ["a", "a"]
    assert [line for line, _ in result.bad] == [2, 3, 4, 5, 6, 7]
    assert "no JSON" in result.bad[0].reason
    assert "model is missing" in result.bad[2].reason
    with pytest.raises(TraceFormatError) as refusal:
        read_traces(path)
    assert (refusal.value.path, refusal.value.line) == (str(path), 2)
    assert str(refusal.value).startswith(f"{path}:2: no JSON")


def test_files_that_hold_nothing_or_are_not_there_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(TraceFormatError, match="holds no trace"):
        read_traces(empty)
    with pytest.raises(InputError, match="there is no file"):
        read_traces(tmp_path / "absent.parquet")


def test_parquet_that_is_broken_or_of_something_else_is_refused(tmp_path: Path) -> None:
    broken, other = tmp_path / "broken.parquet", tmp_path / "other.parquet"
    broken.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(TraceFormatError, match="cannot be read as Parquet"):
        read_traces(broken)
    pq.write_table(pa.table({"id": ["a"], "price": [3]}), other)
    with pytest.raises(TraceFormatError, match="no column model, steps"):
        read_traces(other)


def test_parquet_of_another_tool_keeps_its_columns_and_its_bad_rows_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "theirs.parquet"
    steps = [{"tokens": 3, "answer": "1"}]
    rows = [
        {"id": "a", "model": "m", "steps": steps, "extra": "a remark", "run": 7},
        {"id": "b", "model": "m", "steps": [], "extra": None, "run": 8},
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    result = read_traces(path, skip_bad=True)
    assert dict(result.traces[0].extra) == {"extra": "a remark", "run": 7}
    assert [line for line, _ in result.bad] == [2]


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_stand_ins_impossible_entries_and_unknown_keys_survive(tmp_path: Path, name: str) -> None:
    kept = trace(
        step(top_logprobs=[[-0.1, -math.inf], [-math.inf, 0.0]]),
        step(uncertainty=-3.5, answer=None, correct=None, tokens=0),
        signal=Signal(kind="length", top_k=None),
    )
    kept = replace(kept, extra={"extra": 1, "x": {"é": [None]}})
    path = tmp_path / "folder" / name
    assert write_traces([kept], path) == 1
    assert read_traces(path).traces == [kept]


def test_impossible_entries_are_null_in_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_traces([trace(step(top_logprobs=[[-0.1, -math.inf]]))], path)
    assert json.loads(path.read_text())["steps"][0]["top_logprobs"] == [[-0.1, None]]


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_traces([trace()], path)
    before = path.read_bytes()

    def failing() -> Iterator[Trace]:
        yield trace(id="new")
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError):
        write_traces(failing(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_traces([trace()], tmp_path / "file" / "t.jsonl")


def test_many_rows_stream_through_batches_in_order(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    assert write_traces((trace(id=f"p-{number}") for number in range(2500)), path) == 2500
    read = [item.id for item in TraceFile(path)]
    assert read == [f"p-{number}" for number in range(2500)]
    assert trace_to_json(read_traces(path).traces[0]) == trace_to_json(trace(id="p-0"))


def test_ordinary_batches_hold_their_numbers_in_arrays(tmp_path: Path) -> None:
    path = tmp_path / "traces.parquet"
    row = tuple(-0.1 * number for number in range(1, 21))
    probed = replace(step(0.5, 0.25), probe=Probe(answer="1", correct=True, tokens=2, logprobs=(-0.1, -math.inf)))
    recorded = [trace(step(top_logprobs=[row, row]), step(top_logprobs=[row]), probed, id=str(n)) for n in range(5)]
    write_traces(recorded, path)
    for read, was in zip(TraceFile(path), recorded, strict=True):
        first, second, third = read.steps
        assert isinstance(first.top_logprobs, Block)
        assert isinstance(third.entropies, memoryview)
        assert (len(first.top_logprobs), first.top_logprobs[1], list(second.top_logprobs or ())) == (
            2,
            [*row],
            [[*row]],
        )
        assert third.probe is not None
        assert list(third.probe.logprobs or ()) == [-0.1, -math.inf]
        assert [made.bits(SIGNAL) for made in read.steps] == [made.bits(SIGNAL) for made in was.steps]


def test_one_unusual_trace_is_read_by_itself_and_a_bad_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "traces.parquet"
    good = trace(step(top_logprobs=[(-0.5, -1.0), (-0.5, -1.0)]), id="a")
    uneven = trace(step(top_logprobs=[(-0.5, -1.0), (-0.5,)]), id="b")
    write_traces([good, uneven], path)
    assert list(TraceFile(path)) == [good, uneven]
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[1]["steps"][0]["tokens"] = None
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    with pytest.raises(TraceFormatError, match=r"traces.parquet:2: steps\[0\].tokens is missing"):
        list(TraceFile(path))
    kept = TraceFile(path, skip_bad=True)
    assert [made.id for made in kept] == ["a"]
    assert [line for line, _ in kept.bad] == [2]


def test_long_traces_come_in_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "traces.parquet"
    recorded = [trace(step(*[0.5] * 500), id=str(number)) for number in range(20)]
    write_traces(recorded, path)
    monkeypatch.setattr("justenough.trace.parquet._BATCH_BYTES", 50_000)
    assert max(batch.num_rows for batch in parquet_batches(path)) < 20
    assert [made.id for made in TraceFile(path)] == [made.id for made in recorded]


@pytest.mark.parametrize(("seconds", "bound"), [(-0.5, "at least 0"), (1e300, "at most 1000000000")])
def test_an_impossible_latency_is_refused_however_the_file_is_read(tmp_path: Path, seconds: float, bound: str) -> None:
    path = tmp_path / "traces.parquet"
    write_traces([trace(replace(step(0.5), latency_s=seconds))], path)
    with pytest.raises(TraceFormatError, match=bound):
        list(TraceFile(path))
    with pytest.raises(TraceFormatError, match=bound):
        read_traces(path)


@pytest.mark.parametrize("member", ["entropy", "uncertainty"])
def test_a_number_whose_sums_would_overflow_names_its_line(member: str, tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    step = {"tokens": 3, "answer": "1", "entropy": 0.5, "uncertainty": 0.5}
    rows = [{"id": name, "model": "m", "steps": [step | more]} for name, more in (("a", {}), ("b", {member: 1e308}))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(TraceFormatError, match=rf"traces.jsonl:2: .*{member} is 1e\+308"):
        read_traces(path)


def test_a_relative_name_may_have_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    traces = [trace(step(0.5))]
    assert write_traces(traces, "a:b.parquet") == 1
    assert read_traces("a:b.parquet").traces == traces
