"""Each format from hand-written samples, and the genuine files where they are at hand."""

from __future__ import annotations

import csv
import gzip
import json
import math
from pathlib import Path

import pytest

from justenough.errors import InputError
from justenough.evaluation.diagnosis import diagnose
from justenough.importing import FORMATS, ImportOptions, import_file
from justenough.trace import Json, Trace
from justenough.trace.files import LoadResult, read_traces, write_traces
from tests.builders import population

SHARED = Path(__file__).parents[4] / "shared" / "data"

LN2 = math.log(2)


def entry(token: str, *logprobs: float) -> dict[str, Json]:
    top: list[Json] = [{"token": str(at), "logprob": value, "bytes": None} for at, value in enumerate(logprobs)]
    return {"token": token, "logprob": logprobs[0], "bytes": list(token.encode()), "top_logprobs": top}


def chat(
    *entries: dict[str, Json],
    identity: str = "chatcmpl-1",
    text: str = "Answer: 4",
    tokens: int | None = None,
    finish: str = "stop",
) -> dict[str, Json]:
    """A chat completion of `Answer: 4`, three tokens, one bit each, unless told otherwise."""
    content = entries or (entry("Answer", -LN2, -LN2), entry(": ", -LN2, -LN2), entry("4", -LN2, -LN2))
    choice: dict[str, Json] = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "logprobs": {"content": list(content)},
        "finish_reason": finish,
    }
    usage: dict[str, Json] = {"prompt_tokens": 7, "completion_tokens": len(content) if tokens is None else tokens}
    return {"id": identity, "object": "chat.completion", "model": "m-1", "choices": [choice], "usage": usage}


def completion(identity: str, text: str, tops: list[Json]) -> dict[str, Json]:
    logprobs: dict[str, Json] = {"tokens": list(text), "token_logprobs": [-LN2] * len(text), "top_logprobs": tops}
    choice: dict[str, Json] = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": "length"}
    return {"id": identity, "object": "text_completion", "model": "m-1", "choices": [choice]}


def batch(custom_id: str, body: Json, *, status: int = 200) -> dict[str, Json]:
    return {"id": f"batch_{custom_id}", "custom_id": custom_id, "response": {"status_code": status, "body": body}}


def loaded(path: Path, format: str, content: Json | bytes, wanted: ImportOptions | None = None) -> LoadResult:
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return import_file(path, format=format, options=wanted)


def lines(*values: Json | str) -> bytes:
    return "\n".join(value if isinstance(value, str) else json.dumps(value) for value in values).encode()


def one_step(trace: Trace) -> tuple[str, int, float | None]:
    made = trace.steps[0]
    bits = made.bits(trace.signal)
    return str(made.answer), made.tokens, None if bits is None else round(bits, 9)


def test_one_response_keeps_rows_usage_and_texts(tmp_path: Path) -> None:
    [trace], bad = loaded(tmp_path / "one.json", "openai", chat())
    step = trace.steps[0]
    assert (trace.id, trace.model, trace.signal.kind, trace.signal.top_k) == ("chatcmpl-1", "m-1", "entropy", 2)
    assert one_step(trace) == ("4", 3, 1.0)
    assert (step.correct, step.prompt_tokens, step.finish, step.coverage()) == (None, 7, "stop", 1.0)
    assert step.token_texts == ("Answer", ": ", "4")
    assert step.logprobs == (-LN2, -LN2, -LN2)
    assert bad == []


@pytest.mark.parametrize("form", ["array", "pretty array", "lines", "pretty", "gzip lines"])
def test_every_way_that_responses_lie_in_files(tmp_path: Path, form: str) -> None:
    values: list[Json] = [chat(identity="a"), chat(identity="b")]
    content = {
        "array": json.dumps(values).encode(),
        "pretty array": json.dumps(values, indent=1).encode(),
        "lines": lines(*values, ""),
        "pretty": json.dumps(values[0], indent=1).encode(),
        "gzip lines": gzip.compress(lines("", *values)),
    }[form]
    found = loaded(tmp_path / "in", "openai", content)
    assert [trace.id for trace in found.traces] == ["a", "b"][: 1 if form == "pretty" else 2]
    assert found.bad == []


def test_batch_lines_are_graded_by_custom_id_and_bad_ones_named(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_bytes(
        lines(
            {"id": "q1", "problem": "2+2", "target": 4, "group": "easy"},
            {"id": "q2", "problem": "2+3", "target": "5"},
            {"id": "q3", "problem": "?", "target": "5"},
        )
    )
    content = lines(
        batch("q1", chat()),
        batch("q2", chat()),
        "{broken",
        batch("q3", chat(text="", finish="length")),
        {"id": "b4", "custom_id": "q4", "response": None, "error": {"message": "expired"}},
        batch("q5", {"error": {"message": "too long"}}, status=400),
        batch("q1", chat()),
        {"custom_id": "q6", "response": {"status_code": 200, "body": {"choices": []}}},
        batch("elsewhere", chat()),
        "[1]",
    )
    found = loaded(tmp_path / "out.jsonl", "openai", content, ImportOptions(tasks=str(tasks), model="mine"))
    graded = {trace.id: (trace.steps[0].correct, trace.steps[0].is_unanswered) for trace in found.traces}
    assert graded == {"q1": (True, False), "q2": (False, False), "q3": (None, True), "elsewhere": (None, False)}
    first = found.traces[0]
    assert (first.model, first.task, first.group, first.problem, first.target) == ("mine", "tasks", "easy", "2+2", "4")
    reasons = dict(found.bad)
    assert sorted(reasons) == [3, 5, 6, 7, 8, 10]
    assert "expired" in reasons[5]
    assert "400" in reasons[6]
    assert "too long" in reasons[6]
    assert "line 1" in reasons[7]


def test_ids_that_match_no_task_are_an_error(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_bytes(lines({"id": "q1", "problem": "2+2", "target": 4}))
    with pytest.raises(InputError, match="chatcmpl-1"):
        loaded(tmp_path / "one.json", "openai", chat(), ImportOptions(tasks=str(tasks)))


def test_the_top_k_is_what_all_replies_have(tmp_path: Path) -> None:
    wide = [entry("4", *[-1.0 - at for at in range(21)])] * 40
    # One token in forty was merged to fewer entries: it is left out, and the coverage says so.
    merged = [*wide[:39], entry("4", -0.1, -3.0)]
    values: list[Json] = [
        chat(*wide, identity="wide", text="4" * 40),
        chat(*[entry("4", *[-1.0 - at for at in range(20)])] * 40, identity="exact", text="4" * 40),
        chat(*merged, identity="merged", text="4" * 40),
        chat(entry("4", -0.1), identity="one", text="4"),
    ]
    traces, _ = loaded(tmp_path / "in", "openai", values)
    assert {trace.signal.top_k for trace in traces} == {20}
    bits = [trace.steps[0].bits(trace.signal) for trace in traces]
    assert bits[0] == pytest.approx(bits[1])
    assert bits[3] is None
    assert [trace.steps[0].coverage() for trace in traces] == [1.0, 1.0, 39 / 40, None]
    assert (traces[2].steps[0].tokens, traces[2].steps[0].token_texts) == (40, None)
    write_traces(traces, tmp_path / "out.parquet")
    defects = {
        defect.kind: defect.problems for defect in diagnose(read_traces(tmp_path / "out.parquet").traces).defects
    }
    assert (defects["merged_entries"], defects["missing_signal"]) == (2, 1)


def test_a_text_completion_and_a_server_without_usage(tmp_path: Path) -> None:
    tops: list[Json] = [{"4": -LN2, "5": -LN2}, {"2": -LN2, "3": -LN2}]
    [trace], _ = loaded(tmp_path / "in", "openai", completion("c", "42", tops))
    assert one_step(trace) == ("42", 2, 1.0)


def test_several_choices_are_counted_apart(tmp_path: Path) -> None:
    value = chat(tokens=6)
    choices = value["choices"]
    assert isinstance(choices, list)
    assert isinstance(choices[0], dict)
    value["choices"] = [choices[0], choices[0] | {"index": 1}]
    traces, _ = loaded(tmp_path / "in", "openai", value)
    assert [(trace.id, trace.tokens) for trace in traces] == [("chatcmpl-1#0", 3), ("chatcmpl-1#1", 3)]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (chat() | {"object": "chat.completion.chunk"}, "chunk"),
        (chat() | {"id": None}, "id"),
        (chat() | {"model": None}, "model"),
        ({"error": {"message": "no such model"}, "id": "x"}, "no such model"),
        (chat(entry("4", float("nan"), -1.0)), "logprobs"),
        (completion("c", "4", []) | {"choices": [{"text": "4"}]}, "tokens cannot be counted"),
        (chat() | {"choices": 3}, "choices"),
        (7, "object"),
    ],
)
def test_a_response_that_cannot_be_used_says_why(tmp_path: Path, value: Json, reason: str) -> None:
    found = loaded(tmp_path / "in", "openai", lines(value, chat(identity="good")))
    assert [trace.id for trace in found.traces] == ["good"]
    assert [bad.line for bad in found.bad] == [1]
    assert reason in found.bad[0].reason


@pytest.mark.parametrize(("name", "top_k"), [("topk_5", 5), ("domain_reasoning", 20), ("model_gpt4o", 20)])
def test_genuine_responses(name: str, top_k: int) -> None:
    path = SHARED / "openai" / f"chat_logprobs_{name}.json.gz"
    if not path.is_file():
        pytest.skip("the shared responses are not at hand")
    value = json.loads(gzip.decompress(path.read_bytes()))
    [trace], bad = import_file(path, format="openai")
    rows = value["choices"][0]["logprobs"]["content"]
    expected = []
    for row in rows:
        weights = [math.exp(item["logprob"]) for item in row["top_logprobs"]]
        total = sum(weights)
        expected.append(-sum(weight / total * math.log2(weight / total) for weight in weights))
    assert bad == []
    assert trace.signal.top_k == top_k
    assert trace.steps[0].bits(trace.signal) == pytest.approx(sum(expected) / len(expected), rel=1e-9)
    assert trace.tokens == value["usage"]["completion_tokens"]
    assert "".join(trace.steps[0].token_texts or ()) == value["choices"][0]["message"]["content"]


def model_event(text: str, *, model: str = "openai/m-1", **more: Json) -> dict[str, Json]:
    logprobs: dict[str, Json] = {"content": [entry(text, -LN2, -LN2)]}
    message: dict[str, Json] = {"role": "assistant", "content": text}
    choice: dict[str, Json] = {"message": message, "stop_reason": "max_tokens", "logprobs": logprobs}
    usage: dict[str, Json] = {"input_tokens": 11, "output_tokens": 1, "total_tokens": 12}
    output: dict[str, Json] = {"model": "m-1", "choices": [choice], "usage": usage, "time": 1.5}
    event: dict[str, Json] = {"event": "model", "model": model, "output": output}
    return event | more


def inspect_log(*samples: Json) -> dict[str, Json]:
    header: dict[str, Json] = {"task": "popularity", "model": "openai/m-1", "model_generate_config": {}}
    plan: dict[str, Json] = {"config": {"temperature": 0.7}}
    return {"version": 2, "status": "success", "eval": header, "plan": plan, "samples": list(samples)}


def sample(identity: Json, *events: Json, value: Json = "C", answer: str | None = "4", **more: Json) -> dict[str, Json]:
    base: dict[str, Json] = {"id": identity, "epoch": 1, "input": "2+2?", "target": "4", "events": list(events)}
    scores: dict[str, Json] = {"match": {"value": value, "answer": answer}}
    return base | {"scores": scores} | more


def test_an_inspect_log(tmp_path: Path) -> None:
    tool = model_event("")
    output = tool["output"]
    assert isinstance(output, dict)
    choices = output["choices"]
    assert isinstance(choices, list)
    assert isinstance(choices[0], dict)
    choices[0]["message"] = {"content": "calling 4", "tool_calls": [{"function": "calculator"}]}
    judge: Json = {"event": "span_begin", "name": "scorers", "type": "scorers"}
    log = inspect_log(
        sample(1, model_event("5"), model_event("4"), judge, model_event("9")),
        sample("two", model_event("4", model="openai/other"), model_event("5"), value=0, answer=None),
        sample(3, tool, model_event("4", error="overloaded"), model_event("4"), value=True),
        sample(4, model_event("4"), value={"a": 1}),
        sample(5, model_event("4"), error={"message": "killed"}),
        sample(6, model_event("?"), value="N", answer=None),
        sample(7, judge, model_event("4")),
        "what",
    )
    traces, bad = loaded(tmp_path / "log.json", "inspect", log)
    graded = [[(step.answer, step.correct) for step in trace.steps] for trace in traces]
    assert graded == [
        [("5", False), ("4", True)],
        [("5", False)],
        [(None, None), ("4", True)],
        [(None, None)],
    ]
    first = traces[0]
    assert (first.id, first.task, first.model, first.seed) == ("1", "popularity", "openai/m-1", 1)
    assert (first.problem, first.target) == ("2+2?", "4")
    assert (first.signal.top_k, first.signal.temperature) == (2, 0.7)
    assert one_step(first) == ("5", 1, 1.0)
    assert (first.steps[0].prompt_tokens, first.steps[0].latency_s, first.steps[0].finish) == (11, 1.5, "length")
    assert [row.line for row in bad] == [4, 5, 7, 8]
    assert "killed" in bad[1].reason


def test_an_inspect_log_of_the_older_form_with_texts_apart(tmp_path: Path) -> None:
    event = model_event("4")
    output = event["output"]
    assert isinstance(output, dict)
    parts: Json = [{"type": "reasoning", "reasoning": "hm 7"}, {"type": "text", "text": "attachment://k"}]
    output["choices"] = [{"message": {"content": parts}, "stop_reason": "stop"}]
    old = sample("q", answer=None, input=[{"role": "user", "content": "tc://p"}], attachments={"k": "Answer: 4"})
    del old["events"]
    old["transcript"] = {"events": [event], "content": {"p": "2+2?"}}
    plain = sample("p", answer=None, output=output, attachments={"k": "Answer: 4"})
    traces, bad = loaded(tmp_path / "log.json", "inspect", inspect_log(old, plain, sample("lost", event)))
    assert [trace.steps[0].answer for trace in traces] == ["4", "4"]
    assert traces[0].problem == "2+2?"
    assert traces[0].steps[0].text == "<think>hm 7</think>Answer: 4"
    assert traces[0].steps[0].bits(traces[0].signal) is None
    assert "attachment://k" in bad[0].reason


def test_an_eval_archive_says_how_to_make_json_of_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="inspect log dump"):
        loaded(tmp_path / "log.eval", "inspect", b"PK\x03\x04")
    with pytest.raises(InputError, match="no log of Inspect"):
        loaded(tmp_path / "log.json", "inspect", {"a": 1})


HEADER = "model,question_id,category,correct_answer,extracted_answer,mean_token_prob,token_length,answered,correct\n"
RECORDS = HEADER + (
    "A,1,law,C,C,0.75,10,True,True\n"
    "B,1,law,C,D,0.5,100,True,False\n"
    "A,2,law,A,,nan,20,False,False\n"
    "B,2,law,A,A,0.9,200,1,1\n"
    "A,3,math,A,B,1.5,20,True,False\n"
    "A,4,math,A,B,0.5,twenty,True,False\n"
    "A,5,math,A,B,0.5,20,True,maybe\n"
    "A,6,math,A,B,0.5,20,True,False\n"
    "A,1,law,C,C,0.75,10,True,True\n"
    "C,9,law,C,C,x,10,True,True\n"
    ",7,law,C,C,0.75,10,True,True\n"
)


def test_records_from_csv(tmp_path: Path) -> None:
    found = loaded(tmp_path / "r.csv", "records", RECORDS.encode(), ImportOptions(model="A"))
    assert [trace.id for trace in found.traces] == ["1", "2", "6"]
    first, second = found.traces[0], found.traces[1]
    assert (first.task, first.model, first.group, first.target) == ("r", "A", "law", "C")
    assert (first.signal.kind, first.signal.top_k) == ("1-mean_token_prob", None)
    assert (first.steps[0].answer, first.steps[0].correct, first.tokens) == ("C", True, 10)
    assert first.steps[0].bits(first.signal) == 0.25
    assert (second.steps[0].is_unanswered, second.steps[0].bits(second.signal)) == (True, None)
    # The header is line 1; the row of another model is not looked at.
    assert [bad.line for bad in found.bad] == [6, 7, 8, 10, 12]


def test_records_of_two_models_as_two_steps(tmp_path: Path) -> None:
    wanted = ImportOptions(model="A", then="B")
    found = loaded(tmp_path / "r.csv.gz", "records", gzip.compress(RECORDS.encode()), wanted)
    assert [trace.id for trace in found.traces] == ["1", "2"]
    first = found.traces[0]
    assert [(step.model, step.correct, step.tokens) for step in first.steps] == [("A", True, 10), ("B", False, 100)]
    assert (first.model, first.shape, first.tokens) == ("A", "sequential", 110)
    assert [bad.line for bad in found.bad] == [6, 7, 8, 9, 10, 12]
    assert "B has no answer to question 6" in found.bad[3].reason


def test_records_from_parquet_equal_those_from_csv(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    good = [row for number, row in enumerate(csv.DictReader(RECORDS.splitlines()), 2) if number in (2, 3, 4, 5, 9)]
    text = HEADER + "".join(",".join(row.values()) + "\n" for row in good)
    from_csv = loaded(tmp_path / "r.csv", "records", text.encode())
    columns = {name: [row[name] or None for row in good] for name in good[0]}
    typed = pa.table(
        columns
        | {
            "question_id": [int(row["question_id"]) for row in good],
            "token_length": [int(row["token_length"]) for row in good],
            "mean_token_prob": pa.array([float(row["mean_token_prob"]) for row in good], pa.float32()),
            "answered": [row["answered"] in ("True", "1") for row in good],
            "correct": [row["correct"] in ("True", "1") for row in good],
        }
    )
    pq.write_table(typed, tmp_path / "r.parquet")
    from_parquet = import_file(tmp_path / "r.parquet", format="records")
    assert len(from_csv.traces) == 5
    for one, other in zip(from_csv.traces, from_parquet.traces, strict=True):
        assert one.steps[0].uncertainty == pytest.approx(other.steps[0].uncertainty, abs=1e-6)
        assert (one.id, one.model, one.tokens, one.steps[0].answer) == (
            other.id,
            other.model,
            other.tokens,
            other.steps[0].answer,
        )


def test_the_exchange_format_counts_its_bad_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_traces(population(3), path)
    good = path.read_bytes()
    found = loaded(path, "justenough", good + b'{"id": "x"}\n')
    assert len(found.traces) == 3
    assert [(bad.line, "model" in bad.reason) for bad in found.bad] == [(4, True)]


@pytest.mark.parametrize("format", FORMATS)
def test_what_was_imported_is_written_and_read_back(tmp_path: Path, format: str) -> None:
    contents: dict[str, Json | bytes] = {
        "openai": [chat(), chat(entry("4", 0.0, -math.inf), identity="b", text="4")],
        "inspect": inspect_log(sample(1, model_event("5"))),
        "records": RECORDS.encode(),
        "justenough": lines({"id": "a", "model": "m", "steps": [{"tokens": 1, "correct": True}]}),
    }
    traces = loaded(tmp_path / "in", format, contents[format]).traces
    for out in (tmp_path / "out.parquet", tmp_path / "out.jsonl"):
        write_traces(traces, out)
        assert read_traces(out).traces == traces


@pytest.mark.parametrize(
    ("format", "content", "wanted", "match"),
    [
        ("magic", {}, ImportOptions(), "unknown format"),
        ("records", b"a,b\n1,2\n", ImportOptions(), "no column model"),
        ("records", RECORDS.encode(), ImportOptions(then="B"), "--then needs --model"),
        ("records", RECORDS.encode(), ImportOptions(model="Z"), "no model 'Z'"),
        ("records", b"PAR1broken", ImportOptions(), "Parquet"),
        ("openai", {}, ImportOptions(then="B"), "--then means nothing"),
        ("inspect", {}, ImportOptions(model="B"), "--model means nothing"),
        ("openai", gzip.compress(b"{}" * 99, mtime=0)[:-9], ImportOptions(), "whole"),
        ("openai", {}, ImportOptions(grader="magic"), "grader"),
    ],
)
def test_what_cannot_be_imported_at_all(
    tmp_path: Path, format: str, content: Json | bytes, wanted: ImportOptions, match: str
) -> None:
    with pytest.raises(InputError, match=match):
        loaded(tmp_path / "in", format, content, wanted)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        import_file(tmp_path / "none", format="openai")
