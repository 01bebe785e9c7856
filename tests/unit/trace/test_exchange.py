"""The exchange format: read and written without loss, and errors that name the key and the value."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from justenough.errors import TraceFormatError
from justenough.signal.signal import Signal
from justenough.trace import Json, Step, data_fingerprint, trace_from_json, trace_to_json
from tests.builders import trace

LEAST: dict[str, Json] = {"id": "p", "model": "m", "steps": [{"tokens": 3, "answer": "1"}]}


def with_step(**values: Json) -> dict[str, Json]:
    """The least trace with other values in its step."""
    inner: dict[str, Json] = {"tokens": 3, "answer": "1"}
    return LEAST | {"steps": [inner | values]}


def test_the_least_trace_is_read_with_defaults() -> None:
    read = trace_from_json(LEAST)
    assert (read.id, read.model, read.shape, read.task, read.signal) == ("p", "m", "sequential", "", Signal())
    assert read.steps == (Step(tokens=3, answer="1"),)


def test_the_example_of_the_exchange_format_is_read_and_written_back() -> None:
    example: dict[str, Json] = {
        "id": "aime24-3",
        "task": "aime24",
        "family": "aime",
        "group": "level-3",
        "model": "qwen3-8b",
        "shape": "sequential",
        "problem": "…",
        "target": "204",
        "seed": 0,
        "settings": "sha",
        "signal": {
            "kind": "entropy",
            "top_k": 20,
            "tail": "renormalise",
            "pooling": "mean",
            "splitter": "completion",
            "logits": "raw",
            "temperature": 0.6,
        },
        "steps": [
            {
                "text": "…",
                "answer": "204",
                "correct": True,
                "tokens": 812,
                "finish": "stop",
                "model": "other",
                "prompt_tokens": 95,
                "latency_s": 7.1,
                "probe": {"answer": "204", "correct": True, "tokens": 9},
                "entropies": [0.12],
                "ours": [None, {"kept": 1}],
            },
            {"text": "", "answer": None, "correct": None, "tokens": 1, "top_logprobs": [[-0.01, None]]},
            {"text": "", "answer": None, "correct": False, "tokens": 1, "entropy": 0.31},
            {"text": "", "answer": "3", "correct": None, "tokens": 1, "uncertainty": -0.08},
        ],
        "more": {"of": "theirs"},
    }
    read = trace_from_json(example)
    assert trace_to_json(read) == example
    assert read.extra == {"more": {"of": "theirs"}}
    assert read.steps[1].top_logprobs == ((-0.01, -math.inf),)
    assert read.steps[1].is_unanswered
    assert not read.steps[2].is_unanswered


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ([], "no object"),
        ({"model": "m", "steps": [{}]}, "id is missing"),
        ({"id": "p", "problem": "6*7", "target": "42"}, r"without a run of a model \(run it: justenough collect\)"),
        ({"question": "6*7", "answer": "42"}, r"without a run of a model \(run it: justenough collect\)"),
        ({"id": "p", "steps": [{}]}, "model is missing"),
        ({"id": "p", "model": "m"}, "steps is missing"),
        ({"id": "p", "model": "m", "steps": []}, "steps is missing or empty"),
        ({"id": "p", "model": "m", "steps": [7]}, r"steps\[0\] is no object"),
        (LEAST | {"id": ["p"]}, "id is .*expected text"),
        (LEAST | {"shape": "round"}, "shape is 'round'"),
        (LEAST | {"seed": 2**63}, "seed is"),
        (LEAST | {"signal": {"tail": "clip"}}, "signal: unknown tail treatment 'clip'"),
        (LEAST | {"signal": {"pooling": "median"}}, "signal: unknown pooling"),
        (LEAST | {"signal": {"logits": "cooked"}}, "signal: logits is 'cooked'"),
        (LEAST | {"signal": {"top_k": 0}}, "signal: top_k is 0"),
        (LEAST | {"steps": [{"answer": "1"}]}, r"steps\[0\].tokens is missing"),
        (LEAST | {"steps": [{"tokens": 3}]}, "neither answer nor correct"),
        (with_step(tokens=-1), "whole number"),
        (with_step(tokens=1.5), "whole number"),
        (with_step(tokens=math.nan), "whole number"),
        (with_step(tokens=math.inf), "whole number"),
        (with_step(tokens=10**400), "whole number"),
        (with_step(tokens=True), "whole number"),
        (with_step(correct=1), "true or false"),
        (with_step(entropies="low"), r"steps\[0\].entropies is 'low', expected a list"),
        (with_step(entropies=[0.1, None]), r"entropies\[1\] is None, expected a finite number"),
        (with_step(entropies=[-0.1]), "at least 0"),
        (with_step(entropies=[math.nan]), "finite"),
        (with_step(entropies=[10**400]), "finite"),
        (with_step(entropy=-0.1), "at least 0"),
        (with_step(latency_s=10**400), "finite"),
        (with_step(latency_s=-0.5), "latency_s is -0.5, expected a finite number, at least 0"),
        (with_step(latency_s=1e300), "at most 1000000000"),
        (with_step(uncertainty=math.nan), "finite"),
        (with_step(top_logprobs=[-0.1]), r"top_logprobs\[0\] is -0.1, expected a list"),
        (with_step(top_logprobs=7), "top_logprobs is 7, expected a list"),
        (with_step(top_logprobs=[[]]), "without entries"),
        (with_step(top_logprobs=[[None, None]]), "without entries"),
        (with_step(top_logprobs=[[0.5]]), "above 0"),
        (with_step(probe={"tokens": "nine"}), r"steps\[0\].probe.tokens"),
        (with_step(token_texts=[1]), r"token_texts\[0\] is 1, expected text"),
    ],
)
def test_what_is_no_trace_is_refused_naming_the_key(value: Json, complaint: str) -> None:
    with pytest.raises(TraceFormatError, match=complaint):
        trace_from_json(value)


def test_numbers_as_answers_and_broken_characters_are_read_as_text() -> None:
    read = trace_from_json(with_step(answer=204, text="\ud83d\ude00 \ud83d"))
    assert read.steps[0].answer == "204"
    assert read.steps[0].text == "😀 \ufffd"


@pytest.mark.parametrize("key", ["ours", "signal", "prompts", "id", "task", "seed"])
def test_deep_values_are_refused_in_one_line(key: str) -> None:
    deep: Json = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(TraceFormatError, match="nested too deeply"):
        trace_from_json(LEAST | {key: deep})


def test_equal_signals_are_one_object() -> None:
    value = LEAST | {"signal": {"top_k": 5}}
    assert trace_from_json(value).signal is trace_from_json(value).signal


def test_the_fingerprint_ignores_the_order() -> None:
    first, second = trace(id="a"), trace(id="b")
    assert data_fingerprint([first, second]) == data_fingerprint([second, first])
    assert data_fingerprint([first, second]) != data_fingerprint([first, replace(second, seed=1)])
