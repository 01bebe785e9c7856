"""lm-evaluation-harness before the gateway: `local-chat-completions` and a task of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.clients.conftest import Servers
from tests.clients.test_clients import PROGRAMS, ran

pytestmark = pytest.mark.clients


def test_lm_eval_scores_the_same_in_off_mode_and_reads_stopped_thoughts(servers: Servers, tmp_path: Path) -> None:
    file = tmp_path / "read.json"
    ran([str(PROGRAMS / "python"), "-m", "tests.clients.ask_lmeval", str(file), *servers], tmp_path)
    direct, off, gate = (json.loads(file.read_text())[url] for url in servers)
    assert off == direct
    assert len(direct["samples"]) == 3
    for sample, whole in zip(gate["samples"], direct["samples"], strict=True):
        stopped = re.fullmatch(r"(<think>.+)</think>Answer: \d+", sample["text"], re.DOTALL)
        assert stopped is not None
        assert whole["text"].startswith(stopped[1])
        assert len(sample["text"]) < len(whole["text"])
    assert gate["score"] == sum(sample["right"] for sample in gate["samples"]) / 3
