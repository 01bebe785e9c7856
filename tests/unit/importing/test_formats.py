"""What holds for every format."""

from __future__ import annotations

import gzip
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from justenough.errors import InputError
from justenough.importing import FORMATS, ImportOptions, import_file
from justenough.importing.formats import recognised
from justenough.trace import Json
from justenough.trace.files import read_traces, write_traces
from tests.builders import population
from tests.unit.importing.samples import (
    BITS,
    RECORDS,
    chat,
    deepconf_result,
    entry,
    gemini_reply,
    inspect_log,
    known_chat,
    langfuse_generation,
    langsmith_run,
    lines,
    litellm_record,
    llamacpp_reply,
    lmeval_sample,
    loaded,
    model_event,
    ollama_reply,
    one_step,
    response,
    sample,
    sglang_reply,
    vllm_output,
    zstandard,
)


def test_the_exchange_format_counts_its_bad_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_traces(population(3), path)
    good = path.read_bytes()
    found = loaded(path, "justenough", good + b'{"id": "x"}\n')
    assert len(found.traces) == 3
    assert [(bad.line, "model" in bad.reason) for bad in found.bad] == [(4, True)]


CONTENTS: dict[str, Json | bytes] = {
    "openai": [chat(), chat(entry("4", 0.0, -math.inf), identity="b", text="4")],
    "responses": response(),
    "vllm": vllm_output(),
    "sglang": [sglang_reply()],
    "llamacpp": llamacpp_reply(),
    "ollama": ollama_reply(),
    "gemini": gemini_reply(),
    "log": litellm_record(),
    "langfuse": langfuse_generation(),
    "langsmith": langsmith_run(),
    "inspect": inspect_log(sample(1, model_event("5"))),
    "deepconf": deepconf_result(),
    "lm-eval": lmeval_sample(),
    "records": "\n".join(RECORDS.splitlines()[:2]).encode(),
    "justenough": lines({"id": "a", "model": "m", "steps": [{"tokens": 1, "correct": True}]}),
}


@pytest.mark.parametrize("format", FORMATS)
def test_traces_of_every_format_are_recognised_and_written_and_read_back(tmp_path: Path, format: str) -> None:
    path = tmp_path / "in"
    options = ImportOptions(model="m-1") if format == "lm-eval" else None
    traces = loaded(path, format, CONTENTS[format], options).traces
    assert traces
    assert recognised(path) == format
    assert import_file(path, options=options).traces == traces
    for out in (tmp_path / "out.parquet", tmp_path / "out.jsonl"):
        write_traces(traces, out)
        assert read_traces(out).traces == traces
        assert recognised(out) == "justenough"


@pytest.mark.parametrize("packed", [gzip.compress, zstandard])
@pytest.mark.parametrize("format", ["justenough", "openai", "records", "deepconf"])
def test_a_compressed_file_is_read_like_a_plain_one(
    tmp_path: Path, format: str, packed: Callable[[bytes], bytes]
) -> None:
    content = CONTENTS[format]
    plain = content if isinstance(content, bytes) else json.dumps(content).encode()
    expected = loaded(tmp_path / "in", "auto", plain)
    (tmp_path / "in").write_bytes(packed(plain))
    assert import_file(tmp_path / "in") == expected


def test_standard_input_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(known_chat()).encode())))
    [trace], bad = import_file("-")
    assert one_step(trace) == ("4", 2, BITS)
    assert bad == []


@pytest.mark.parametrize(
    ("format", "content"),
    [
        ("records", b"a,b\n"),
        ("records", RECORDS.encode()),
        ("inspect", b"{}"),
        ("justenough", b"PAR1broken"),
        ("openai", gzip.compress(b"{}" * 99, mtime=0)[:-9]),
        ("openai", json.dumps(ollama_reply()).encode()),
        ("auto", b"PK"),
        ("auto", b"{}"),
    ],
)
def test_errors_call_standard_input_by_its_name(format: str, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    with pytest.raises(InputError, match="standard input") as error:
        import_file("-", format=format)
    assert "import-" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"prompt": 1, "score": 2}, "its keys are prompt, score"),
        (b"\x80\x04", "pickle"),
        (b"hello\n", "no record of a known format"),
        ({"error": {"message": "overloaded"}}, "a server's error, not a reply: overloaded"),
        (b"\n", "empty"),
    ],
)
def test_a_file_of_no_known_format_is_described(tmp_path: Path, content: Json | bytes, match: str) -> None:
    with pytest.raises(InputError, match=match):
        loaded(tmp_path / "in", "auto", content)


def test_a_refusal_names_the_format_that_the_file_looks_like(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"looks like ollama \(--format ollama\)"):
        loaded(tmp_path / "in", "openai", ollama_reply())


def test_a_bad_first_line_does_not_hide_the_format(tmp_path: Path) -> None:
    traces, bad = loaded(tmp_path / "in", "auto", lines("{", known_chat()))
    assert (len(traces), [line.line for line in bad]) == (1, [1])


def test_deep_json_is_one_bad_line(tmp_path: Path) -> None:
    deep = "[" * 900 + "]" * 900
    traces, bad = loaded(tmp_path / "in", "openai", lines(known_chat(), f'{{"choices": [{{"logprobs": {deep}}}]}}'))
    assert (len(traces), [line.line for line in bad]) == (1, [2])


def test_rows_of_three_without_a_stated_signal_are_not_twenty(tmp_path: Path) -> None:
    # Three alternatives with probabilities 1/2, 1/4, 1/4: 1/2·1 + 2·1/4·2 = 1.5 bits.
    row: Json = [math.log(1 / 2), math.log(1 / 4), math.log(1 / 4)]
    step: Json = {"tokens": 1, "correct": True, "top_logprobs": [row]}
    [trace], _ = loaded(tmp_path / "in", "justenough", lines({"id": "a", "model": "m", "steps": [step]}))
    assert trace.signal.top_k == 3
    assert trace.steps[0].bits(trace.signal) == pytest.approx(1.5)
    stated = lines({"id": "a", "model": "m", "signal": {"top_k": 2}, "steps": [step]})
    [trace], _ = loaded(tmp_path / "in", "justenough", stated)
    assert trace.signal.top_k == 2


def test_a_line_without_a_stated_k_after_one_with_it(tmp_path: Path) -> None:
    # Three alternatives with probability 1/4: they are 1/3 of their sum, so log2 3 bits.
    step: Json = {"tokens": 1, "correct": True, "top_logprobs": [[math.log(1 / 4)] * 3]}
    bare: Json = {"id": "b", "model": "m", "steps": [step]}
    content = lines({"id": "a", "model": "m", "signal": {"top_k": 2}, "steps": [step]}, bare)
    traces, _ = loaded(tmp_path / "in", "justenough", content)
    assert [trace.signal.top_k for trace in traces] == [2, 3]
    assert traces[1].steps[0].bits(traces[1].signal) == pytest.approx(math.log2(3))


@pytest.mark.parametrize(
    ("format", "content", "wanted", "match"),
    [
        ("magic", {}, ImportOptions(), "unknown format"),
        ("records", b"a,b\n1,2\n", ImportOptions(), "no column model"),
        ("records", RECORDS.encode(), ImportOptions(then="B"), "--then needs --model"),
        ("records", RECORDS.encode(), ImportOptions(model="Z"), "no model 'Z'"),
        ("records", RECORDS.encode(), ImportOptions(), "2 models: A, B"),
        ("openai", [chat(), chat(identity="b") | {"model": "m-2"}], ImportOptions(), "2 models: m-1, m-2"),
        ("openai", [chat(), chat(identity="b") | {"model": "m-2"}], ImportOptions(model="x"), "no model 'x'"),
        ("records", b"PAR1broken", ImportOptions(), "Parquet"),
        ("openai", {}, ImportOptions(then="B"), "--then means nothing"),
        ("inspect", {}, ImportOptions(tasks="B"), "--tasks means nothing"),
        ("openai", {}, ImportOptions(split="chapter"), "unknown splitter"),
        ("openai", gzip.compress(b"{}" * 99, mtime=0)[:-9], ImportOptions(), "whole"),
        ("openai", {}, ImportOptions(grader="magic"), "grader"),
    ],
)
def test_what_cannot_be_imported_at_all(
    tmp_path: Path, format: str, content: Json | bytes, wanted: ImportOptions, match: str
) -> None:
    with pytest.raises(InputError, match=match):
        loaded(tmp_path / "in", format, content, wanted)


def test_one_of_several_models_is_chosen(tmp_path: Path) -> None:
    values: list[Json] = [chat(), chat(identity="b") | {"model": "m-2"}]
    traces, bad = loaded(tmp_path / "in", "auto", values, ImportOptions(model="m-2"))
    assert ([(trace.id, trace.model) for trace in traces], bad) == ([("b", "m-2")], [])


def test_all_models_are_imported_if_all_are_chosen(tmp_path: Path) -> None:
    wide = chat(*[entry("4", -1.0, -1.0, -1.0)] * 3, text="444") | {"model": "m-2"}
    traces, bad = loaded(tmp_path / "in", "auto", [chat(), wide], ImportOptions(model="all"))
    assert [(trace.id, trace.model, trace.signal.top_k) for trace in traces] == [
        ("chatcmpl-1", "m-1", 2),
        ("chatcmpl-1", "m-2", 3),
    ]
    assert bad == []


def test_the_only_model_gets_another_name(tmp_path: Path) -> None:
    [trace], _ = loaded(tmp_path / "in", "auto", chat(), ImportOptions(model="mine"))
    assert trace.model == "mine"


def test_one_id_twice_is_two_runs_only_with_seeds(tmp_path: Path) -> None:
    def record(seed: Json) -> Json:
        return litellm_record(model_parameters={"seed": seed})

    traces, bad = loaded(tmp_path / "in", "log", [record(1), record(2), record(1), record(None)])
    assert [(trace.id, trace.seed) for trace in traces] == [("call-1", 1), ("call-1", 2)]
    assert [(line.line, "also in line 1" in line.reason) for line in bad] == [(3, True), (4, True)]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        import_file(tmp_path / "none", format="openai")
