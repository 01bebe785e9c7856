import math
from dataclasses import replace

import pytest

from justenough.errors import LogprobsError, TraceFormatError
from justenough.signal.signal import Signal
from justenough.trace import Json, Probe, Step, Token, data_fingerprint, trace_from_json, trace_to_json
from tests.builders import step, trace

ROW = [-0.1, -3.0, -5.0]
SHORT = Signal(top_k=3)
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


@pytest.mark.parametrize("signal", [SHORT, Signal(top_k=3, tail="bucket"), Signal(top_k=None)])
def test_a_step_has_the_bits_of_its_tokens(signal: Signal) -> None:
    recorded = step(top_logprobs=[ROW, [*ROW, -6.0], [*ROW, -6.0, -6.0, -7.0, -8.0, -8.5, -9.0, -9.5]])
    assert recorded.top_logprobs is not None
    fed = tuple(Token(text="", top_logprobs=row).bits(signal) for row in recorded.top_logprobs)
    assert recorded.token_bits(signal) == fed


def test_fewer_entries_than_the_signal_takes_are_an_error_that_names_the_option() -> None:
    with pytest.raises(LogprobsError, match="top_logprobs=20"):
        step(top_logprobs=[ROW]).bits(Signal(top_k=20))
    with pytest.raises(LogprobsError, match="max-logprobs"):
        Token(text="x", top_logprobs=tuple(ROW)).bits(Signal(top_k=20))


def test_the_richest_form_of_the_signal_counts_and_none_is_none() -> None:
    signal = Signal()
    assert step(0.2, 0.4).bits(signal) == pytest.approx(0.3)
    assert step(entropy=0.31).bits(signal) == 0.31
    assert step(entropy=0.31).bits(replace(signal, pooling="sum")) is None
    assert step(entropy=0.31).coverage() is None
    assert step().bits(signal) is None


def test_bits_of_one_kind_are_not_offered_for_another() -> None:
    stand_in = Signal(kind="surprisal", top_k=None)
    assert step(0.2, uncertainty=7.0).bits(stand_in) == 7.0
    assert step(0.2).bits(stand_in) is None
    assert Token(text="x", entropy=0.2).bits(stand_in) is None
    assert step(0.2, uncertainty=7.0).bits(Signal()) == pytest.approx(0.2)


def test_tokens_are_those_really_generated_up_to_a_step() -> None:
    probed = [replace(step(0.1, tokens=tokens), probe=Probe(answer="1", correct=True, tokens=9)) for tokens in (10, 20)]
    assert [trace(*probed, shape="streaming").tokens_to(count) for count in (1, 2)] == [19, 39]
    assert [trace(*probed, shape="sequential").tokens_to(count) for count in (1, 2)] == [19, 48]
    assert trace(*probed, shape="streaming").tokens == 39


def test_ids_are_hashed_with_their_task_and_the_fingerprint_ignores_order() -> None:
    first, second = trace(id="a"), trace(id="b")
    assert first.hashed_id != replace(first, task="other").hashed_id
    assert len(first.hashed_id) == 16
    assert data_fingerprint([first, second]) == data_fingerprint([second, first])
    assert data_fingerprint([first, second]) != data_fingerprint([first, replace(second, seed=1)])
