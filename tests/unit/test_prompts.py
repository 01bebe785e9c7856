"""What a model is asked: the texts, their digest, and their way through traces, calibrations and the gateway."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from justenough.calibration.calibration import calibrate, calibration_from_json
from justenough.errors import InputError, TraceFormatError
from justenough.files import write_text
from justenough.gateway.settings import GatewaySettings
from justenough.prompts import GENERAL, OPENED, prompts_from_json
from justenough.signal.thought import FORMATS, thought_format
from justenough.toy.notation import PROMPTS
from justenough.trace import trace_from_json, trace_to_json
from justenough.trace.files import TraceFile, read_traces, write_traces
from tests.builders import population, trace
from tests.unit.gateway.serving import calibration_of, served

EMBEDDED = PROMPTS
ALL = (GENERAL, OPENED, EMBEDDED)
URL = "http://127.0.0.1:1"


def test_prompts_survive_their_json() -> None:
    for prompts in (*ALL, replace(GENERAL, thought=FORMATS["mistral"])):
        assert prompts_from_json(prompts.to_json()) == prompts
    assert len({prompts.digest for prompts in ALL}) == len(ALL)
    assert replace(GENERAL, name="other").digest == GENERAL.digest


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ([], "prompts is \\[\\]"),
        (GENERAL.to_json() | {"wait": 7}, "prompts.wait is 7"),
        (GENERAL.to_json() | {"wait": "Hm"}, "prompts.digest"),
        (GENERAL.to_json() | {"thought": "tags"}, "prompts.thought is 'tags'"),
        (GENERAL.to_json() | {"thought": {"open": 1}}, "open is 1"),
        (GENERAL.to_json() | {"thought": {"cue": 1}}, "cue is 1"),
    ],
)
def test_prompts_that_cannot_be_read_are_named(value: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        prompts_from_json(value)
    with pytest.raises(TraceFormatError, match=complaint):
        trace_from_json(trace_to_json(trace()) | {"prompts": value})


@pytest.mark.parametrize("name", ["traces.jsonl", "traces.parquet"])
def test_a_trace_keeps_its_prompts_and_their_unknown_keys(tmp_path: Path, name: str) -> None:
    made = [replace(trace(id="a"), prompts=GENERAL, prompts_extra={"source": "me"}), trace(id="b")]
    write_traces(made, tmp_path / name)
    assert read_traces(tmp_path / name).traces == made
    assert [trace_to_json(one) for one in TraceFile(tmp_path / name)] == [trace_to_json(one) for one in made]


def test_a_calibration_takes_the_prompts_of_its_traces() -> None:
    traces = [replace(one, prompts=EMBEDDED) for one in population(60)]
    made = calibrate(traces)
    assert made.prompts == EMBEDDED
    assert calibration_from_json(made.to_json()) == made
    mixed = calibrate([replace(one, prompts=GENERAL if at % 2 else EMBEDDED) for at, one in enumerate(traces)])
    assert mixed.prompts is None
    assert "the traces were asked with 2 different prompts: none is stored" in mixed.warnings


def test_a_calibration_from_before_prompts_were_stored_is_read() -> None:
    old = {key: value for key, value in calibrate(population(60)).to_json().items() if key != "prompts"}
    assert calibration_from_json(old).prompts is None
    with pytest.raises(InputError, match="file: prompts is 7"):
        calibration_from_json(old | {"prompts": 7}, where="file")


def test_the_gateway_asks_with_the_calibration_s_prompts() -> None:
    calibrated = replace(calibration_of(1.0), prompts=EMBEDDED)
    settings = GatewaySettings(upstream=URL, calibration=calibrated)
    assert (settings.prompts, settings.prompt_warnings) == (EMBEDDED, ())
    other = replace(settings, close="\n</think>\n", answer_cue="Answer:")
    assert (other.prompts.close, other.prompts.answer, other.prompts.refine) == (
        "\n</think>\n",
        "Answer:",
        EMBEDDED.refine,
    )
    assert [warning.partition(" is ")[0] for warning in other.prompt_warnings] == ["the closing text", "the answer cue"]
    bare = GatewaySettings(upstream=URL, close="x")
    assert (bare.prompts, bare.prompt_warnings) == (replace(GENERAL, answer="", close="x"), ())


def test_serve_s_own_options_stand_in_place_of_the_calibration_s(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    write_text(path, replace(calibration_of(1.0), prompts=EMBEDDED).dumps())
    given = ["serve", "--upstream", URL, "--calibration", str(path)]
    assert served(*given).prompts == EMBEDDED
    own = served(*given, "--close", r"\n</think>\n")
    assert own.prompts.close == "\n</think>\n"
    assert len(own.prompt_warnings) == 1


def test_prompts_for_another_format_of_thoughts_close_it_in_its_own_way() -> None:
    cue = GENERAL.with_thought(thought_format("until:Answer:"))
    assert (cue.close, cue.answer, cue.thought.cue) == ("\n\n", "Answer:", True)
    kimi = GENERAL.with_thought(FORMATS["kimi"])
    assert (kimi.close, kimi.answer) == ("\n◁/think▷\n\n", "Answer:")
    assert GENERAL.with_thought(GENERAL.thought) is GENERAL
