"""Offline results of vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from justenough.importing import ImportOptions
from justenough.trace import Json
from tests.unit.importing.samples import BITS, loaded, logs, one_step, vllm_output


def test_a_request_output_has_the_entropy_of_its_rows(tmp_path: Path) -> None:
    [trace], bad = loaded(tmp_path / "in", "vllm", vllm_output())
    assert one_step(trace) == ("4", 2, BITS)
    assert (trace.id, trace.problem, trace.steps[0].prompt_tokens, trace.steps[0].finish) == ("q1", "2+2?", 3, "stop")
    assert trace.steps[0].token_texts == ("Answer: ", "4")
    assert bad == []


def test_flat_log_probabilities_are_the_same_rows(tmp_path: Path) -> None:
    flat: dict[str, Json] = {
        "start_indices": [0, 4],
        "end_indices": [4, 8],
        "token_ids": [0, 1, 2, 3, 100, 101, 102, 103],
        "logprobs": [value for _, row in logs() for value in row],
        "ranks": [1, 2, 3, 4] * 2,
        "decoded_tokens": [token if rank == 0 else "?" for token, _ in logs() for rank in range(4)],
    }
    traces = loaded(tmp_path / "in", "vllm", vllm_output(logprobs=flat)).traces
    assert traces == loaded(tmp_path / "in", "vllm", vllm_output()).traces


def test_outputs_without_a_model_need_its_name(tmp_path: Path) -> None:
    value = vllm_output()
    del value["model"]
    traces, [line] = loaded(tmp_path / "in", "auto", value)
    assert (traces, "give --model NAME" in line.reason) == ([], True)
    [trace], _ = loaded(tmp_path / "in", "auto", value, ImportOptions(model="mine"))
    assert trace.model == "mine"


@pytest.mark.parametrize("logprobs", [None, [], [{}, {}]])
def test_outputs_without_log_probabilities_say_how_to_get_them(tmp_path: Path, logprobs: Json) -> None:
    traces, [line] = loaded(tmp_path / "in", "vllm", vllm_output(logprobs=logprobs))
    assert traces == []
    assert line.reason == "the reply has no log-probabilities: request SamplingParams(logprobs=20)"
