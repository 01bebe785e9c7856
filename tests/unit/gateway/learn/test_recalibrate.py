"""The threshold fitted anew on the audited share: recommended always, applied only where the operator says so."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from justenough.calibration.calibration import Calibration, calibrate, load_calibration
from justenough.errors import InputError
from justenough.gateway.learn.drift import REPEATS, WINDOW
from justenough.gateway.learn.recalibrate import LEAST, REFITS, Recalibration, fitted
from justenough.testing import MockUpstream
from justenough.trace import Step, Trace
from tests.unit.gateway.serving import Running, calibration_of
from tests.unit.gateway.test_gating import CHAT, gated

AGREEMENT = replace(calibration_of(1.0), labels="agreement")


def examples(n: int, *, seed: int = 0) -> list[tuple[str, float, bool]]:
    """Separable: right ones at about 0.4 bits, wrong ones at about 2."""
    random = Random(seed)
    return [(f"a{at}", max(0.0, random.gauss(0.4 if at % 2 else 2.0, 0.2)), bool(at % 2)) for at in range(n)]


def filled(calibration: Calibration, n: int, **more: Any) -> Recalibration:
    made = Recalibration(calibration, **more)
    for key, bits, agreed in examples(n):
        made.example(key, bits, agreed=agreed)
    return made


def test_it_is_what_calibrate_makes_of_the_same_examples(tmp_path: Path) -> None:
    out = tmp_path / "recalibrated.json"
    made = filled(AGREEMENT, 60, out=out)
    assert made.due
    asyncio.run(made.refit())
    assert not made.due
    traces = [
        Trace(
            id=key,
            task="gateway",
            model="mock",
            shape="streaming",
            signal=AGREEMENT.signal,
            steps=(Step(answer=str(agreed), tokens=1, entropy=bits), Step(answer="True", tokens=1)),
        )
        for key, bits, agreed in examples(60)
    ]
    expected = calibrate(traces, labels="agreement", max_steps=4)
    fit: Any = made.summary()["fitted"]
    assert fit["threshold"] == expected.threshold
    assert fit["difference"] == pytest.approx((expected.threshold or 0) - 1.0)
    assert (fit["n"], fit["n_right"], fit["verdict"]) == (60, 30, "separates")
    assert fit["not_applied"] == "not allowed: --apply-recalibration"
    written = load_calibration(out)
    assert written == made.fitted
    assert (written.labels, written.signal, written.decide) == ("agreement", AGREEMENT.signal, "every")


def test_graded_examples_need_labels_and_the_kinds_are_never_mixed() -> None:
    made = filled(calibration_of(1.0), 60)
    assert not made.due
    for key, _, agreed in examples(60)[:LEAST]:
        # An answer that differs from a right one is wrong; one that differs from a wrong one counts as wrong.
        made.label(key, correct=agreed or key == "a2")
    made.label("unknown", correct=True)
    assert made.due
    first = [trace.steps[0].correct for trace in made.traces()]
    assert len(first) == LEAST
    assert first == [agreed for _, _, agreed in examples(60)[:LEAST]]
    assert [trace.steps[-1].correct for trace in made.traces()][2] is True
    assert made.summary()["labelled"] == LEAST


def test_labels_may_come_before_the_comparison_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justenough.gateway.learn.recalibrate._MOST", 50)
    made = Recalibration(calibration_of(1.0))
    for key, bits, agreed in examples(200):
        made.label(key, correct=True)
        made.example(key, bits, agreed=agreed)
    assert len(made.traces()) == 50
    assert made.due
    assert [trace.id for trace in made.traces()] == [f"a{at}" for at in range(150, 200)]
    made.forget()
    assert not made.traces()


def test_what_does_not_separate_is_told_and_never_applied(tmp_path: Path) -> None:
    adopted: list[Calibration] = []
    for agreed in (True, None):
        made = Recalibration(AGREEMENT, adopt=adopted.append, out=tmp_path / "out.json")
        for at in range(40):
            made.example(f"a{at}", 1.0 + at % 7, agreed=agreed if agreed is not None else at % 3 == 0)
        asyncio.run(made.refit())
        summary: Any = made.summary()
        assert summary["refused"] or summary["fitted"]["not_applied"].startswith("its verdict is")
        assert summary["applied"] == 0
    assert not adopted


def test_what_cannot_be_read_or_measured_is_no_example() -> None:
    made = Recalibration(AGREEMENT)
    made.example(None, 1.0, agreed=True)
    made.example("a", None, agreed=True)
    made.example("a", 1.0, agreed=None)
    assert not made.traces()
    assert Recalibration(None).traces() == []


CERTIFIED = replace(
    AGREEMENT,
    method="risk",
    decide="first",
    guarantee="with 95% confidence",
    max_harm=0.05,
    confidence=0.95,
    threshold=0.1,
)


def test_a_certificate_is_renewed_at_its_own_level_and_the_refits_share_the_error() -> None:
    """Without harm a single fit at 5 % takes 59 labels; one of ten refits takes 104."""
    made = filled(CERTIFIED, 103, adopt=lambda calibration: None)
    assert not made.due
    assert made.summary()["least"] == 104
    made = Recalibration(CERTIFIED, adopt=lambda calibration: None)
    for at in range(300):
        made.example(f"a{at}", 0.5, agreed=True)
    assert made.due
    asyncio.run(made.refit())
    fit = made.fitted
    assert fit is not None
    assert (fit.max_harm, fit.confidence, fit.method, made.applied) == (0.05, 0.95, "risk", 1)
    assert fit.guarantee is not None
    assert "at most 5.00%" in fit.guarantee
    assert "95% confidence over the draw of the 300 examples and over 10 refits together" in fit.guarantee
    # Half of the examples must be new before the next part of the error is spent.
    for at in range(200):
        made.example(f"b{at}", 0.5, agreed=True)
    assert not made.due
    for at in range(200):
        made.example(f"c{at}", 0.5, agreed=True)
    assert made.due
    for _ in range(REFITS - 1):
        asyncio.run(made.refit())
    for at in range(2000):
        made.example(f"d{at}", 0.5, agreed=True)
    assert not made.due
    assert made.summary()["fits"] == made.summary()["planned_fits"] == REFITS


@pytest.mark.parametrize(
    ("calibration", "reason"),
    [
        (replace(CERTIFIED, max_harm=None), "does not state the level"),
        (replace(CERTIFIED, decide="every"), "for every step"),
        (replace(CERTIFIED, method="net", min_tokens=5), "minimum of tokens"),
    ],
)
def test_a_certificate_that_the_examples_cannot_renew_stays(calibration: Calibration, reason: str) -> None:
    made = filled(calibration, 300, adopt=lambda calibration: None)
    assert not made.due
    assert reason in str(made.summary()["refused"])
    with pytest.raises(InputError, match=reason):
        fitted(made.traces(), calibration)


def sure(bits: float) -> tuple[float, ...]:
    """Twenty log-probabilities whose entropy is about so many bits: one likely token, the rest alike."""
    low, high = 1e-9, 0.95
    for _ in range(60):
        rest = (low + high) / 2
        entropy = -(1 - rest) * math.log2(1 - rest) - rest * math.log2(rest / 19)
        low, high = (rest, high) if entropy < bits else (low, rest)
    return tuple([math.log(1 - low)] + [math.log(low / 19)] * 19)


@pytest.mark.parametrize("applies", [False, True])
def test_the_gateway_recalibrates_on_its_audited_share(applies: bool, tmp_path: Path) -> None:
    """Confident first steps answer as the whole thought does, unsure ones otherwise; the gate was far too strict."""
    out = tmp_path / "recalibrated.json"

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for number, (_, bits, agreed) in enumerate(examples(20)):
            mock.answer_id, mock.logprobs = f"chat-{number}", (sure(bits),)
            mock.answer = ("42",) if agreed else (f"{number}", ".")
            first = len(mock.completions)
            mock.on_request = lambda request, first=first, agreed=agreed: setattr(
                mock, "answer", ("42",) if agreed or len(mock.completions) == first + 1 else ("41",)
            )
            await client.post("/v1/chat/completions", json={**CHAT, "seed": number})
            async with asyncio.timeout(30):
                while gateway.service._background:
                    await asyncio.sleep(0.005)
        status = (await client.get("/v1/justenough/status")).json()
        told = status["recalibration"]
        assert (told["examples"], told["labels"], told["refused"]) == (20, "agreement", None)
        fit = told["fitted"]
        assert fit["verdict"] == "separates"
        assert 0.3 < fit["threshold"] < 0.6
        assert load_calibration(out).n == fit["n"]
        metrics = (await client.get("/metrics")).text
        assert f"justenough_recalibrated_threshold {fit['threshold']!r}\n" in metrics
        if applies:
            assert status["calibration"]["threshold"] == told["applied_threshold"] == fit["threshold"]
            assert (told["applied"] > 0, fit["not_applied"]) == (True, None)
            assert "justenough_recalibrations_total 0\n" not in metrics
        else:
            assert status["calibration"]["threshold"] == told["applied_threshold"] == 0.01
            assert told["applied"] == 0
            assert "justenough_recalibrations_total 0\n" in metrics
        mock.logprobs, mock.on_request = (sure(0.2),), None
        report = (await client.post("/v1/chat/completions", json={**CHAT, "seed": 99})).json()["justenough"]
        assert (report["reason"] == "confident") is applies

    calibration = replace(AGREEMENT, threshold=0.01, mean_right=None, mean_wrong=None)
    gated(
        scenario,
        MockUpstream(thought=("Let me think", ".\n\n", "So it is", " 42.\n\n")),
        calibration=calibration,
        audit_share=1.0,
        apply_recalibration=applies,
        recalibrated=out,
    )


def test_after_a_drift_the_audited_share_tells_the_new_threshold_and_no_saving() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for _ in range(REPEATS * WINDOW):
            gateway.service.learning.drift.add(99.0, "127.0.0.1")
        for number in range(3):
            mock.answer_id = f"chat-{number}"
            whole = (await client.post("/v1/chat/completions", json={**CHAT, "seed": number})).json()
            assert (whole["justenough"]["decision"], whole["justenough"]["reason"]) == ("audited", "drift")
        async with asyncio.timeout(30):
            while gateway.service._background:
                await asyncio.sleep(0.005)
        status = (await client.get("/v1/justenough/status")).json()
        assert status["recalibration"]["examples"] == 3
        assert status["audit"]["requests"] == 0
        assert status["mode"] == "observe"
        # With a new calibration the gate is back.
        gateway.service._adopt(AGREEMENT)
        status = (await client.get("/v1/justenough/status")).json()
        assert (status["mode"], status["drift"]["drifted"]) == ("gate", False)

    gated(scenario, calibration=AGREEMENT, audit_share=1.0)


def test_labels_and_examples_that_are_repeated_are_not_new() -> None:
    graded = Recalibration(calibration_of(1.0))
    graded.example("a", 0.5, agreed=True)
    for number in range(100):
        graded.label("a", correct=bool(number % 2))
    agreeing = Recalibration(AGREEMENT)
    for _ in range(100):
        agreeing.example("a", 0.5, agreed=True)
    assert (graded._fresh, agreeing._fresh) == (1, 1)
