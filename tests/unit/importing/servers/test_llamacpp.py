"""Replies of llama.cpp's own protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from justenough.trace import Json
from tests.unit.importing.samples import BITS, lines, llamacpp_reply, loaded, one_step


@pytest.mark.parametrize("form", ["top_logprobs", "top_probs", "probs"])
def test_every_form_has_the_entropy_of_its_rows(tmp_path: Path, form: str) -> None:
    [trace], bad = loaded(tmp_path / "in", "llamacpp", llamacpp_reply(form))
    assert one_step(trace) == ("4", 2, BITS)
    assert (trace.id, trace.problem, trace.steps[0].finish) == ("line-1", "2+2?", "stop")
    assert trace.steps[0].logprobs == pytest.approx([-1.3862943611, -0.6931471806])
    assert bad == []


def test_a_stream_is_joined_to_one_reply(tmp_path: Path) -> None:
    whole = llamacpp_reply()
    rows = whole.pop("completion_probabilities")
    assert isinstance(rows, list)
    pieces: list[Json] = [
        {"content": text, "stop": False, "id_slot": -1, "completion_probabilities": [row]}
        for text, row in zip(("Answer: ", "4"), rows, strict=True)
    ]
    last: Json = whole | {"content": "", "stop_type": "limit"}
    traces, bad = loaded(tmp_path / "in", "auto", lines(*pieces, last, *pieces, last))
    assert [one_step(trace) for trace in traces] == [("4", 2, BITS)] * 2
    assert [(trace.id, trace.steps[0].finish) for trace in traces] == [("line-1", "length"), ("line-4", "length")]
    assert bad == []


def test_a_probability_of_zero_is_no_error(tmp_path: Path) -> None:
    # Probabilities 1/2, 1/2 and 0: 2 * 1/2 * 1 = 1 bit.
    probs: Json = [{"tok_str": token, "prob": p} for token, p in (("4", 0.5), ("5", 0.5), ("6", 0))]
    row: Json = {"content": "4", "probs": probs}
    value = llamacpp_reply() | {"content": "4", "tokens_predicted": 1, "completion_probabilities": [row]}
    [trace], _ = loaded(tmp_path / "in", "llamacpp", value)
    assert one_step(trace) == ("4", 1, 1.0)


def test_tokens_that_cannot_be_sampled_have_probability_zero(tmp_path: Path) -> None:
    # min_p left one alternative of the first token and two of the second: 0 bits and 1 bit.
    rows: Json = [
        {"token": "Answer: ", "prob": 1.0, "top_probs": [{"token": "Answer: ", "prob": 1.0}]},
        {"token": "4", "prob": 0.5, "top_probs": [{"token": "4", "prob": 0.5}, {"token": "5", "prob": 0.5}]},
    ]
    settings: Json = {"n_probs": 20, "temperature": 0.6}
    value = llamacpp_reply() | {"completion_probabilities": rows, "generation_settings": settings}
    [trace], bad = loaded(tmp_path / "in", "llamacpp", value)
    assert one_step(trace) == ("4", 2, 0.5)
    assert (trace.signal.top_k, trace.signal.temperature, bad) == (20, 0.6, [])


def test_a_cut_list_of_alternatives_is_not_filled(tmp_path: Path) -> None:
    rows: Json = [
        {"token": "Answer: ", "prob": 0.4, "top_probs": [{"token": "Answer: ", "prob": 0.4}]},
        {"token": "4", "prob": 0.5, "top_probs": [{"token": "4", "prob": 0.5}, {"token": "5", "prob": 0.5}]},
    ]
    traces, [line] = loaded(tmp_path / "in", "llamacpp", llamacpp_reply() | {"completion_probabilities": rows})
    assert (traces, "too few of its tokens" in line.reason) == ([], True)
