"""schemathesis on a gateway's own OpenAPI description, before an upstream that complains as real ones do."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import httpx
import pytest

from justenough.gateway.settings import GatewaySettings
from justenough.testing import MockUpstream
from tests.unit.gateway.serving import calibration_of, running

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
KEY = "sk-client"
CHAT = {"model": "mock", "messages": [{"role": "user", "content": "What is 6*7?"}]}
HEADERS = {"authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("phases", "examples"),
    [
        ("examples,fuzzing", 10),
        pytest.param("examples,coverage,fuzzing", 300, marks=pytest.mark.long),
    ],
)
def test_the_gateway_does_what_its_description_says(phases: str, examples: int, tmp_path: Path) -> None:
    async def scenario() -> tuple[int | None, str]:
        # The description's example of feedback is on this answer.
        async with MockUpstream(answer_id="chatcmpl-1") as mock:
            settings = GatewaySettings(
                upstream=mock.url, calibration=calibration_of(1.0), models=("qwen3-8b",), client_keys=(KEY,)
            )
            async with running(settings) as gateway:
                async with httpx.AsyncClient(base_url=gateway.url, headers=HEADERS) as client:
                    assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
                done = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
                    *("run", f"{gateway.url}/openapi.json", "--header", f"Authorization: Bearer {KEY}"),
                    *("--phases", phases, "--max-examples", str(examples), "--generation-deterministic"),
                    "--continue-on-failure",
                    cwd=tmp_path,
                    env={
                        **os.environ,
                        "SCHEMATHESIS_HOOKS": "tests.e2e.gateway.schemathesis_hooks",
                        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                    },
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )
                said, _ = await done.communicate()
                assert not gateway.service.active
                return done.returncode, said.decode()

    code, said = asyncio.run(scenario())
    assert code == 0, said
