"""The plugin in `vllm run-batch`: a file of requests, of which one is gated."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CHECKPOINT
from tests.e2e.gateway.through import ANYTHING, MODEL
from tests.unit.gateway.serving import calibration_of
from tests.vllm.conftest import EXACT, PATIENCE_S, PROGRAM, REASONING, environment

pytestmark = pytest.mark.vllm


def request(id: str, **more: Any) -> str:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "47*36"}],
        "temperature": 0,
        "max_tokens": 400,
    }
    return json.dumps({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body | more})


def test_only_the_gated_request_of_a_file_is_stopped(tmp_path: Path) -> None:
    calibration, requests, replies = (tmp_path / name for name in ("calibration.json", "in.jsonl", "out.jsonl"))
    calibration_of(ANYTHING, model=MODEL, temperature=0.0).save(calibration)
    lines = [request("before"), request("gated", vllm_xargs={"justenough": 1}), request("after")]
    requests.write_text("".join(f"{line}\n" for line in lines))
    command = [str(PROGRAM), "run-batch", "-i", str(requests), "-o", str(replies), "--model", str(CHECKPOINT)]
    command += [*EXACT, *REASONING, "--logits-processors", "justenough:VLLMProcessor"]
    variables = environment() | {"JUSTENOUGH_CALIBRATION": str(calibration)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert done.returncode == 0, done.stderr[-4000:]
    answers = {
        each["custom_id"]: each["response"]["body"] for each in map(json.loads, replies.read_text().splitlines())
    }
    tokens = {name: answer["usage"]["completion_tokens"] for name, answer in answers.items()}
    assert tokens["before"] == tokens["after"] == 276
    assert tokens["gated"] < 276
    message = answers["gated"]["choices"][0]["message"]
    assert message["reasoning"].endswith("\n\n")
    assert message["content"]
