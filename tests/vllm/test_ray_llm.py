"""The plugin in `ray.data.llm`, with vLLM's engine inside Ray: only the gated rows are stopped."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import CHECKPOINT
from tests.e2e.gateway.through import ANYTHING, MODEL
from tests.unit.gateway.serving import calibration_of
from tests.vllm.conftest import PATIENCE_S, PROGRAM, environment

pytestmark = pytest.mark.vllm


def test_only_the_gated_rows_are_stopped(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    calibration_of(ANYTHING, model=MODEL, temperature=0.0).save(file)
    program = Path(__file__).with_name("ray_llm.py")
    command = [str(PROGRAM.with_name("python")), str(program), str(CHECKPOINT), str(file)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert done.returncode == 0, done.stderr[-4000:]
    (rows,) = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("[{"))
    tokens = {(row["problem"], row["gated"]): row["tokens"] for row in rows}
    assert len(tokens) == 4
    for problem in ("47*36", "68*71"):
        assert 0 < tokens[problem, True] < tokens[problem, False]
