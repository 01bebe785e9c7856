"""The plugin in Python: `LLM(logits_processors=[justenough.VLLMProcessor])`, and recorded tokens through it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from justenough.gate import Gate, Reason
from justenough.trace import Token
from tests.conftest import CHECKPOINT
from tests.e2e.gateway.through import ANYTHING, MODEL
from tests.unit.gateway.serving import calibration_of
from tests.vllm.conftest import IS_V2, PATIENCE_S, PROGRAM, environment
from tests.vllm.test_plugin import rows, settings_of

pytestmark = pytest.mark.vllm

FORCED = "<think>1+1=3\n\n9*9=80\n\n47*36=1692\n\n</think>80<|end|>"
"""What the model would never say."""


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    file = tmp_path_factory.mktemp("offline") / "calibration.json"
    calibration_of(ANYTHING, model=MODEL).save(file)
    program = Path(__file__).with_name("offline.py")
    command = [str(PROGRAM.with_name("python")), str(program), str(CHECKPOINT), str(file), json.dumps(forced_ids())]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert done.returncode == 0, done.stderr[-4000:]
    return [line for line in done.stdout.splitlines() if line.startswith(("[", "{"))]


def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))


def forced_ids() -> list[int]:
    ids: list[int] = tokenizer().encode(FORCED, add_special_tokens=False).ids
    return ids


def test_three_lines_stop_a_thought(printed: list[str]) -> None:
    whole, one, other = json.loads(printed[0])
    assert one == other
    assert len(one) < len(whole) == 276
    (report,) = json.loads(printed[1])
    cut = report["cut_at"]
    assert one[:cut] == whole[:cut]
    assert one[cut] == tokenizer().token_to_id("</think>")
    assert tokenizer().decode(one[:cut], skip_special_tokens=False).endswith("\n\n")


@pytest.mark.skipif(not IS_V2, reason="trace replay is a part of Model Runner V2")
def test_a_recorded_run_gives_the_decisions_of_replay(printed: list[str]) -> None:
    replayed, (report,) = json.loads(printed[2]), json.loads(printed[3])
    assert replayed["ids"] == forced_ids()
    gate, expected = Gate(settings_of(-1.0)), []
    for id, row in zip(replayed["ids"], replayed["rows"], strict=True):
        text = tokenizer().decode([id], skip_special_tokens=False)
        if text == "</think>":
            break
        decision = gate.feed(Token(text, sorted(row, reverse=True)))
        if decision.reason is not Reason.WITHIN_STEP:
            expected.append(decision)
    assert len(expected) == 3
    assert rows(expected) == [(one["reason"], one["tokens"]) for one in report["steps"]]
    bits = [one["entropy"] for one in report["steps"]]
    assert bits == pytest.approx([one.entropy for one in expected], abs=1e-5)
