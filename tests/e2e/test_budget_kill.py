"""`collect --budget` killed with SIGKILL at random moments: the ledger's sum stays what was generated."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from justenough.budget import Ledger
from justenough.trace.files import read_traces

BUDGET = 1500
KILLS = 3


def command(out: Path) -> list[str]:
    return [
        sys.executable, "-m", "justenough", "collect", "--model", "embedded", "--tasks", "arithmetic-calibration",
        "--limit", "40", "--budget", str(BUDGET), "--policy", "entropy-proportional", "--out", str(out),
    ]  # fmt: skip


def kept(journal: Path) -> dict[str, int]:
    """Tokens of each step that the journal's whole lines hold; a later line of a problem replaces the earlier."""
    if not journal.exists():
        return {}
    lines = [line for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    rows = [json.loads(line) for line in lines[1:]]
    return {f"{row['id']}#{at}": step["tokens"] for row in rows for at, step in enumerate(row["steps"], 1)}


def test_kill_nine_at_random_moments_then_resume(tmp_path: Path) -> None:
    out, random = tmp_path / "t.parquet", Random(1)
    journal, path = tmp_path / "t.parquet.part.jsonl", tmp_path / "t.parquet.ledger"
    before: dict[str, int] = {}
    for _ in range(KILLS):
        process = subprocess.Popen(command(out), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while process.poll() is None and len(kept(journal)) <= len(before):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        steps = kept(journal)
        assert before.items() <= steps.items(), "a kept step is lost or was made anew"
        check(path, steps)
        before = steps
    assert subprocess.run(command(out), capture_output=True, check=False).returncode == 0
    steps = kept(journal)
    lost = check(path, steps)
    with Ledger(path=path) as ledger:
        assert ledger.spent == BUDGET
    kept_tokens = sum(trace.tokens for trace in read_traces(out).traces)
    assert kept_tokens == sum(steps.values()) == BUDGET - lost


def check(path: Path, steps: dict[str, int]) -> int:
    """Every kept step is paid for once, every step that a kill took with what it had said; tokens paid in vain."""
    with Ledger(path=path) as ledger:
        paid, lapses = dict(ledger.spent_by_key), ledger.lapses
        assert ledger.spent == sum(paid.values()) <= BUDGET
    assert {key for key, tokens in steps.items() if tokens} <= paid.keys()
    for key, tokens in steps.items():
        taken = [lapse.used for lapse in lapses if lapse.key == key]
        # The kill fell before the step was kept and it was run anew, or after, and what it had counted stands.
        assert paid.get(key, 0) == tokens + sum(taken) or (paid[key] == sum(taken) and tokens in taken)
    lost = sum(paid.values()) - sum(steps.values())
    unkept = paid.keys() - steps.keys()
    # Of those that no kill took, one at most was cut at the end of the budget.
    assert len(unkept - {lapse.key for lapse in lapses}) <= 1
    return lost
