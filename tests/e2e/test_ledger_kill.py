"""kill -9 at any moment: what was committed is what the file says, and what was under way has lapsed by name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from justenough.budget import Ledger

# Writes what it is about to commit, commits, and notes that it did: each line reaches the file by one write call.
CHILD = """
import os, sys
from random import Random
from justenough.budget import Ledger

path, journal, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
random = Random(seed)
note = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
ledger = Ledger(1_000_000_000, path=path)
os.write(1, b"ready\\n")
number = 0
while True:
    key = f"{seed}/{number}"
    number += 1
    os.write(note, f"reserve {key} 50\\n".encode())
    reservation = ledger.reserve(50, key=key)
    used = random.randint(0, 50)
    os.write(note, f"commit {key} {used}\\n".encode())
    reservation.commit(used)
    os.write(note, f"done {key} {used}\\n".encode())
"""
KILLS = 12


def test_the_sum_survives_many_kills(tmp_path: Path) -> None:
    path, journal = tmp_path / "ledger", tmp_path / "journal"
    random = Random(0)
    for seed in range(KILLS):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), str(journal), str(seed)], stdout=subprocess.PIPE
        )
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            time.sleep(random.uniform(0, 0.05))
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            child.stdout.close()
        lines = [line.split() for line in journal.read_text().splitlines()]
        meant = {key: int(used) for word, key, used in lines if word == "commit"}
        done = {key: int(used) for word, key, used in lines if word == "done"}
        begun = {key for word, key, _ in lines if word == "reserve"}
        with Ledger(path=path) as ledger:
            held = ledger.spent_by_key
            assert ledger.spent == sum(held.values())
            assert ledger.reserved == 0
            assert {key: held[key] for key in done} == done, "a commit that was acknowledged is lost"
            # A commit that the kill left unacknowledged is there whole or not at all.
            assert all(held[key] == meant[key] for key in held)
            lapsed = {lapse.key for lapse in ledger.lapses}
            assert lapsed <= begun - done.keys()
            assert not lapsed & held.keys(), "a step is both paid for and lapsed"
            assert len(begun - done.keys()) <= seed + 1
    assert len(done) > KILLS
    with Ledger(path=path) as ledger:
        assert ledger.total == 1_000_000_000
        assert ledger.remaining == ledger.total - ledger.spent
        assert len(ledger.lapses) > 0


def test_a_killed_process_gives_its_reservation_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    code = (
        "import os, signal, sys; from justenough.budget import Ledger; ledger = Ledger(100, path=sys.argv[1]);"
        "r = ledger.reserve(30, key='a'); r.commit(10); ledger.reserve(90, key='b').use(40);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -signal.SIGKILL
    with Ledger(100, path=path) as ledger:
        assert (ledger.spent, ledger.reserved, ledger.remaining) == (10, 0, 90)
        assert [(lapse.key, lapse.limit) for lapse in ledger.lapses] == [("b", 90)]
        assert dict(ledger.spent_by_key) == {"a": 10}
