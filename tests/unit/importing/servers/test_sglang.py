"""Replies of SGLang."""

from __future__ import annotations

from pathlib import Path

from justenough.trace import Json
from tests.unit.importing.samples import BITS, loaded, logs, one_step, sglang_reply


def test_a_reply_has_the_entropy_of_its_rows(tmp_path: Path) -> None:
    [trace], bad = loaded(tmp_path / "in", "sglang", [sglang_reply()])
    assert one_step(trace) == ("4", 2, BITS)
    assert (trace.id, trace.steps[0].prompt_tokens, trace.steps[0].finish) == ("q1", 3, "stop")
    assert bad == []


def test_without_top_log_probabilities_there_is_no_signal(tmp_path: Path) -> None:
    traces, [line] = loaded(tmp_path / "in", "sglang", sglang_reply(output_top_logprobs=None))
    assert traces == []
    assert "of the chosen tokens only" in line.reason
    assert "top_logprobs_num: 20" in line.reason


def test_a_token_without_a_row_lowers_the_coverage(tmp_path: Path) -> None:
    row: Json = [[value, 0, None] for value in logs()[0][1]]
    tops: list[Json] = [*[row] * 39, None]
    own: list[Json] = [[-0.5, 0, None]] * 40
    value = sglang_reply(output_token_logprobs=own, output_top_logprobs=tops, completion_tokens=40)
    [trace], _ = loaded(tmp_path / "in", "sglang", value)
    # Each row that is there has four alternatives of probability 1/4: 2 bits.
    assert one_step(trace) == ("4", 40, 2.0)
    assert trace.steps[0].coverage() == 39 / 40
