"""The logits processor in the batches of both runners: cuts, neighbours, recycled places, preemption, drafts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch

from justenough.errors import InputError, MissingExtra
from justenough.gate import GateSettings, decisions
from justenough.integrations.vllm.processor import VLLMProcessor
from justenough.signal.signal import Signal
from justenough.trace import Step
from tests.unit.gateway.serving import calibration_of
from tests.unit.integrations.vllm.runners import (
    BREAK,
    CLOSE,
    OPEN,
    STEP,
    WORDS,
    Params,
    RunnerV1,
    RunnerV2,
    Talk,
    config,
    run,
    use_words,
)

SIGNAL = Signal(splitter="paragraph", logits="raw", top_k=5)
FULL = replace(SIGNAL, top_k=None, tail="full")
SURE_THIRD = (False, False, True, False, True, False)
CUT = 1 + 3 * (len(STEP) + 1)
"""Output position after the third step."""


def gated(name: str = "one", *, signal: Signal = SIGNAL, threshold: float = 0.5, **settings: Any) -> dict[str, Any]:
    calibration = replace(calibration_of(threshold, **settings), signal=signal)
    return {"justenough": calibration.dumps(), "justenough_id": name}


RUNNERS: dict[str, Callable[..., RunnerV1 | RunnerV2]] = {
    "v1": RunnerV1,
    "v2": RunnerV2,
    "v2-called-twice": lambda **more: RunnerV2(calls=2, **more),
    "v2-drafts": lambda **more: RunnerV2(drafts=3, **more),
    "v2-one-draft": lambda **more: RunnerV2(drafts=1, calls=2, **more),
}
Runner = Callable[..., RunnerV1 | RunnerV2]


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Runner:
    use_words(monkeypatch)
    return RUNNERS[request.param]


@pytest.fixture
def v1(monkeypatch: pytest.MonkeyPatch) -> RunnerV1:
    use_words(monkeypatch)
    return RunnerV1()


def replayed(talk: Talk, signal: Signal = SIGNAL, *, threshold: float = 0.5) -> list[tuple[str, float, int]]:
    """The decisions on the same tokens and logits as recorded steps."""
    steps: list[Step] = []
    rows: list[list[float]] = []
    for position, token in enumerate(talk.output):
        if token == CLOSE:
            break
        row = torch.log_softmax(talk.logits[position], -1).sort(descending=True).values
        rows.append(row[: signal.top_k].tolist())
        if token == BREAK:
            steps.append(Step(tokens=len(rows), top_logprobs=rows))
            rows = []
    settings = GateSettings(threshold=threshold, signal=signal, shape="streaming", decide="every", max_steps=1000)
    return [(one.reason, one.entropy or 0.0, one.tokens) for one in decisions(steps, settings)]


def decided(talk: Talk) -> list[tuple[str, float, int]]:
    return [(one["reason"], one["entropy"], one["tokens"]) for one in talk.report["steps"]]


def test_a_thought_is_cut_after_its_first_confident_step(runner: Runner) -> None:
    talk = Talk(SURE_THIRD, gated())
    run(runner(), talk)
    assert talk.output == [*talk.script[:CUT], *talk.script[-3:]]
    assert talk.report["decision"] == "stopped"
    assert talk.report["cut_at"] == CUT
    assert talk.report["notes"] == []
    assert talk.report["thought_tokens"] == CUT


@pytest.mark.parametrize("signal", [SIGNAL, FULL, replace(FULL, top_k=5)], ids=["top-5", "full", "full-5"])
def test_the_decisions_are_those_of_replay(runner: Runner, signal: Signal) -> None:
    talk = Talk(SURE_THIRD, gated(signal=signal))
    run(runner(), talk)
    expected = replayed(talk, FULL if signal.tail == "full" else signal)
    assert len(expected) == 3
    assert [(reason, tokens) for reason, _, tokens in decided(talk)] == [(one[0], one[2]) for one in expected]
    bits = [one[1] for one in expected]
    assert [one[1] for one in decided(talk)] == (bits if signal is SIGNAL else pytest.approx(bits, abs=1e-5))


def test_an_unsure_thought_ends_by_itself(runner: Runner) -> None:
    talk = Talk((False,) * 4, gated())
    run(runner(), talk)
    assert talk.output == talk.script
    assert talk.report["decision"] == "going_on"
    assert [reason for reason, _, _ in decided(talk)] == ["uncertain"] * 4


def test_a_thought_that_the_prompt_opened_is_cut(runner: Runner) -> None:
    talk = Talk(SURE_THIRD, gated(), prompt=(2, CLOSE, OPEN, BREAK))
    run(runner(), talk)
    assert talk.output == [*talk.script[: CUT - 1], *talk.script[-3:]]


def test_a_text_without_a_thought_is_left_alone(runner: Runner) -> None:
    talk = Talk(SURE_THIRD, gated(), prompt=(2, OPEN, CLOSE))
    run(runner(), talk)
    assert talk.output == talk.script
    assert talk.report["steps"] == []


def test_requests_that_are_not_gated_keep_their_logits_bit_for_bit(runner: Runner) -> None:
    one, other = Talk(SURE_THIRD), Talk((True, True), {"something": 1})
    run(runner(), one, Talk(SURE_THIRD, gated()), other, Talk(SURE_THIRD, {"justenough": 0}))
    for talk in (one, other):
        assert talk.output == talk.script
        assert all(torch.equal(talk.logits[at], talk.seen[at]) for at in talk.logits)


def test_logits_of_a_gated_request_change_only_where_its_end_is_forced(runner: Runner) -> None:
    talk = Talk(SURE_THIRD, gated())
    run(runner(), talk)
    changed = [at for at in talk.logits if not torch.equal(talk.logits[at], talk.seen[at])]
    # After the cut only the closing tag is taken out.
    assert changed == list(range(CUT, len(talk.output)))
    for at in changed[1:]:
        talk.logits[at][CLOSE] = -torch.inf
        assert torch.equal(talk.logits[at], talk.seen[at])


def test_each_of_several_requests_has_its_own_gate(runner: Runner) -> None:
    talks = [
        Talk(SURE_THIRD, gated("one")),
        Talk((True, False), gated("two")),
        Talk(SURE_THIRD, gated("three", patience=2)),
        Talk(SURE_THIRD, gated("four", signal=FULL)),
    ]
    run(runner(), *talks)
    assert [talk.report["cut_at"] for talk in talks] == [CUT, 7, None, CUT]


@pytest.mark.parametrize("after", [1, 8, CUT - 1, CUT, CUT + 1])
def test_a_preempted_request_goes_on_where_it_was(runner: Runner, after: int) -> None:
    one = runner()
    talk, neighbour = Talk(SURE_THIRD, gated()), Talk((False,) * 9)
    one.add(talk)
    one.add(neighbour)
    while len(talk.output) < after:
        one.step()
    if not talk.ended:
        one.leave(talk)
        one.step()
        one.again(talk)
    while not talk.ended:
        one.step()
    assert talk.output == [*talk.script[:CUT], *talk.script[-3:]]
    assert [step[0] for step in decided(talk)] == ["uncertain", "uncertain", "confident"]


def test_a_recycled_place_knows_nothing_of_the_request_before(runner: Runner) -> None:
    one = runner(**({} if runner is RunnerV1 else {"slots": 1}))
    run(one, Talk((True, True), gated("first")))
    plain = Talk(SURE_THIRD)
    run(one, plain)
    assert plain.output == plain.script
    again = Talk(SURE_THIRD, gated("second"))
    run(one, again)
    assert again.report["cut_at"] == CUT


def test_requests_that_move_in_the_batch_keep_their_gates(v1: RunnerV1) -> None:
    short, plain, long = Talk((True,), gated("short")), Talk(SURE_THIRD), Talk(SURE_THIRD, gated("long"))
    for talk in (short, plain, long):
        v1.add(talk)
    v1.step()
    v1.swap(1, 2)
    while not all(talk.ended for talk in (short, plain, long)):
        v1.step()
    assert [short.report["cut_at"], long.report["cut_at"]] == [7, CUT]
    assert plain.output == plain.script


def test_drafts_are_rejected_and_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    use_words(monkeypatch)
    runner = RunnerV2(drafts=3)
    run(runner, Talk((False,) * 4, gated()))
    assert 0 < runner.accepted < runner.drafted


def test_the_closing_tag_does_not_come_twice_after_a_cut(runner: Runner) -> None:
    talk = Talk(SURE_THIRD, gated(), again=True)
    run(runner(), talk)
    assert talk.text.endswith("</think>42<end>")
    assert talk.output.count(CLOSE) == 1


def test_a_thought_that_ended_by_itself_may_close_twice(v1: RunnerV1) -> None:
    talk = Talk((False,), gated(), again=True)
    run(v1, talk, Talk((False,) * 3))
    assert talk.text.endswith("</think></think>42<end>")
    assert all(torch.equal(talk.logits[at], talk.seen[at]) for at in talk.logits)


def test_all_tokens_of_the_configured_end_are_forced(runner: Runner) -> None:
    end = (WORDS.index("So"), WORDS.index(" now"), WORDS.index("."), CLOSE)
    talk = Talk(SURE_THIRD, gated())
    run(runner(end=end), talk)
    assert talk.output[CUT : CUT + 4] == list(end)
    assert talk.text.endswith("So now.</think>42<end>")


def test_an_end_that_a_grammar_forbids_is_not_forced(v1: RunnerV1) -> None:
    talk = Talk(SURE_THIRD, gated())
    v1.add(talk)
    raw = talk.raw
    talk.raw = lambda position, before: raw(position, before).index_fill(0, torch.tensor(CLOSE), -torch.inf)  # type: ignore[method-assign]
    for _ in range(CUT + 1):
        v1.step()
    assert torch.equal(talk.logits[CUT], talk.seen[CUT])
    v1.step()
    assert talk.report["notes"] == ["forced_token_replaced"]


def test_rows_without_an_entropy_never_stop(runner: Runner) -> None:
    talk = Talk((True, True), gated())
    raw = talk.raw

    def broken(position: int, before: Any) -> torch.Tensor:
        row = raw(position, before)
        row[0] = torch.nan if len(before) > 1 else row[0]
        return row

    one = runner()
    one.add(talk)
    talk.raw = broken  # type: ignore[method-assign]
    for _ in range(8):
        one.step()
    assert talk.report["decision"] == "going_on"


def test_a_step_whose_end_is_known_too_late_waits_for_the_next_end(v1: RunnerV1) -> None:
    talk = Talk((True, False, True, True), gated())
    v1.add(talk)
    while len(talk.output) < 7:
        v1.step()
    # The device gives the token that ends the step back one step late.
    talk.output[6] = -1
    v1.step()
    talk.output[6] = BREAK
    while not talk.ended:
        v1.step()
    assert talk.report["steps"][0]["reason"] == "confident"
    assert talk.report["cut_at"] == 13


def test_a_request_for_another_model_is_not_gated(runner: Runner) -> None:
    talk = Talk(SURE_THIRD, gated())
    run(runner(model="other"), talk)
    assert talk.output == talk.script
    assert talk.report["notes"] == ["other_model"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"end": ()}, "how the model marks its thought"),
        ({"enable_batch_sharded_sampling": True}, "batch-sharded"),
    ],
)
def test_a_server_that_cannot_gate_does_not_start(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], words: str
) -> None:
    use_words(monkeypatch)
    with pytest.raises(InputError, match=words):
        VLLMProcessor(config(**settings), torch.device("cpu"), False)


def test_a_broken_calibration_of_the_server_stops_its_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    use_words(monkeypatch)
    (tmp_path / "broken.json").write_text("{}")
    monkeypatch.setenv("JUSTENOUGH_CALIBRATION", str(tmp_path / "broken.json"))
    with pytest.raises(InputError, match="no calibration"):
        VLLMProcessor(config(), torch.device("cpu"), False)


def test_vllm_gets_a_value_error_for_a_request_that_cannot_be_gated() -> None:
    with pytest.raises(ValueError, match=r"^SignalMismatch: min_tokens is 3"):
        VLLMProcessor.validate_params(Params(gated(), min_tokens=3))


def test_without_vllm_it_names_what_is_missing() -> None:
    with pytest.raises(MissingExtra, match="pip install vllm"):
        VLLMProcessor(SimpleNamespace(), torch.device("cpu"), False)
