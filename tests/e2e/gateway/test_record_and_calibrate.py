"""From one's own traffic to a calibration, by the commands that the documentation gives."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from justenough.calibration.calibration import load_calibration
from justenough.cli.main import main
from justenough.testing import CONFIDENT, UNSURE, MockUpstream
from tests.unit.gateway.serving import Running
from tests.unit.gateway.test_gating import CHAT, gated


def recorded(path: Path, **settings: Any) -> None:
    """24 audited thoughts; the confident ones answer at once as they do in the end."""

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for number in range(24):
            sure = number % 2 == 0
            mock.logprobs = (CONFIDENT,) if sure else (UNSURE,)
            before = len(mock.completions)
            # The first request is the whole thought, the second asks for the answer after its first step.
            mock.on_request = lambda request, before=before, sure=sure: setattr(
                mock, "answer", ("So 42.0",) if sure or len(mock.completions) == before + 1 else ("So 41",)
            )
            asked = {**CHAT, "messages": [{"role": "user", "content": f"{number}?"}]}
            await client.post("/v1/chat/completions", json=asked)
            while gateway.service.learning.recorder.traces == number:  # type: ignore[union-attr]
                await asyncio.sleep(0.002)

    upstream = MockUpstream(thought=("Let me think", ".\n\n", "Well", ".\n\n"))
    gated(scenario, upstream, calibration=None, audit_share=1.0, record=path, **settings)


@pytest.mark.parametrize("with_text", [True, False])
def test_label_free_by_default(tmp_path: Path, with_text: bool, capsys: pytest.CaptureFixture[str]) -> None:
    traces, out = tmp_path / "traces.jsonl", tmp_path / "calibration.json"
    recorded(traces, record_text=with_text)
    assert main(["calibrate", str(traces), "--out", str(out)]) == 0
    assert "label-free" in capsys.readouterr().err
    made = load_calibration(out)
    assert (made.labels, made.shape, made.model) == ("agreement", "streaming", "mock")
    assert (made.n, made.n_right) == (24, 12)
    assert made.threshold == pytest.approx(0.0016, abs=0.001)


def test_with_a_grader_and_targets(tmp_path: Path) -> None:
    traces, out = tmp_path / "traces.jsonl", tmp_path / "calibration.json"
    recorded(traces)
    lines = [json.loads(line) | {"target": "42"} for line in traces.read_text().splitlines()]
    traces.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["calibrate", str(traces), "--grader", "number", "--out", str(out)]) == 0
    made = load_calibration(out)
    assert (made.labels, made.n, made.n_right) == ("graded", 24, 12)


def test_with_a_grader_alone_agreement_is_the_graders(tmp_path: Path) -> None:
    traces, out = tmp_path / "traces.jsonl", tmp_path / "calibration.json"
    recorded(traces)
    lines = [json.loads(line) for line in traces.read_text().splitlines()]
    for line in lines:
        if line["steps"][0]["answer"] == line["steps"][-1]["answer"]:
            line["steps"][0]["probe"]["text"] = "4.2e1"
    traces.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["calibrate", str(traces), "--grader", "number", "--out", str(out)]) == 0
    made = load_calibration(out)
    assert (made.labels, made.n_right) == ("agreement", 12)
