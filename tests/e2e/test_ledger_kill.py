"""kill -9 at any moment, with several processes that share a file: the sum is what was counted, token by token."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from justenough.budget import Ledger

# Says what it is about to do, does it, and notes that it did: each line reaches the file by one write call.
CHILD = """
import os, sys, time
from random import Random
from threading import Thread
from justenough.budget import Ledger
from justenough.errors import BudgetError

path, journal, name, total = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
file = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def note(*words):
    os.write(file, (" ".join(map(str, words)) + "\\n").encode())

def work(ledger, worker, turn):
    random = Random(f"{name}/{worker}/{turn}")
    for number in range(3):
        key, limit = f"{name}/{worker}/{turn}/{number}", random.randint(1, 50)
        note("reserve", key, limit)
        try:
            with ledger.reserve(limit, key=key) as reservation:
                used = 0
                for _ in range(random.randint(0, 12)):
                    amount = random.randint(1, 9)
                    used = min(used + amount, limit)
                    note("use", key, used)
                    reservation.use(amount)
                    note("used", key, used)
        except BudgetError as error:
            # Over-run, or nothing left: both end the step.
            assert "used" in str(error) or "are left" in str(error), error
        note("done", key, limit)

turn = 0
while True:
    try:
        with Ledger(total, path=path) as ledger:
            threads = [Thread(target=work, args=(ledger, worker, turn)) for worker in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        turn += 1
    except BudgetError as error:
        assert "in use by another process" in str(error), error
    time.sleep(0.01)
"""


@contextmanager
def writer(path: Path, journal: Path, name: str, *, total: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(path), str(journal), name, str(total)])
    try:
        yield process
    finally:
        assert process.poll() is None, "a writer ended by itself"
        process.send_signal(signal.SIGKILL)
        process.wait()


def noted(journal: Path) -> list[list[str]]:
    return [line.split() for line in journal.read_text().splitlines()] if journal.exists() else []


def wait_for(journal: Path, lines: int) -> None:
    deadline = time.monotonic() + 60
    while len(noted(journal)) < lines:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def check(path: Path, journal: Path) -> int:
    """Hold the file against the notes, line by line; the lapses."""
    lines = noted(journal)
    begun = {key for word, key, _ in lines if word == "reserve"}
    done = {key for word, key, _ in lines if word == "done"}
    least = {key: int(amount) for word, key, amount in lines if word == "used"}
    most = {key: int(amount) for word, key, amount in lines if word == "use"}
    with Ledger(path=path) as ledger:
        held = ledger.spent_by_key
        assert ledger.spent == sum(held.values()) <= ledger.total
        assert (ledger.reserved, ledger.remaining) == (0, ledger.total - ledger.spent)
        assert held.keys() <= begun
        for key in begun:
            # What is between the two was under way at the kill: there whole or not at all.
            assert held.get(key, 0) in (least.get(key, 0), most.get(key, 0)), key
        lapses = ledger.lapses
        assert {lapse.key for lapse in lapses} <= begun - done
        assert all(held.get(lapse.key, 0) == lapse.used <= lapse.limit for lapse in lapses)
    return len(lapses)


def test_the_sum_survives_kills_of_several_writers(tmp_path: Path) -> None:
    path, journal = tmp_path / "ledger", tmp_path / "journal"
    random, rounds, lapses = Random(0), 0, 0
    # Until a kill has hit a step under way too.
    while rounds < 3 or not lapses:
        assert rounds < 20
        with (
            writer(path, journal, f"a{rounds}", total=1_000_000),
            writer(path, journal, f"b{rounds}", total=1_000_000),
        ):
            wait_for(journal, len(noted(journal)) + random.randint(5, 90))
        lapses = check(path, journal)
        rounds += 1


def test_a_budget_that_runs_out_under_kills_ends_at_its_limit(tmp_path: Path) -> None:
    path, journal, total = tmp_path / "ledger", tmp_path / "journal", 300
    for kill in range(2):
        with writer(path, journal, f"c{kill}", total=total):
            wait_for(journal, len(noted(journal)) + 60)
        check(path, journal)
    deadline = time.monotonic() + 60
    with writer(path, journal, "last", total=total):
        # Nothing is left when even a token is refused: steps are begun and end at once.
        while not _ends_at_once(noted(journal)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    check(path, journal)
    with Ledger(path=path) as ledger:
        assert total - 50 < ledger.spent <= total


def _ends_at_once(lines: list[list[str]]) -> bool:
    words = [word for word, _, _ in lines[-40:]]
    return len(words) == 40 and set(words) == {"reserve", "done"}


def test_a_killed_process_gives_back_what_it_did_not_use(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    code = (
        "import os, signal, sys; from justenough.budget import Ledger; ledger = Ledger(100, path=sys.argv[1]);"
        "r = ledger.reserve(30, key='a'); r.commit(10); ledger.reserve(90, key='b').use(40);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -signal.SIGKILL
    for _ in range(2):
        with Ledger(100, path=path) as ledger:
            assert (ledger.spent, ledger.reserved, ledger.remaining) == (50, 0, 50)
            assert [tuple(lapse) for lapse in ledger.lapses] == [("b", 90, 40)]
            assert dict(ledger.spent_by_key) == {"a": 10, "b": 40}


def test_the_lock_of_a_killed_process_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    code = (
        "import sys, time; from justenough.budget import Ledger; ledger = Ledger(100, path=sys.argv[1]);"
        "print('ready', flush=True); time.sleep(60)"
    )
    second = [
        sys.executable,
        "-c",
        "import sys; from justenough.budget import Ledger; Ledger(path=sys.argv[1])",
        str(path),
    ]
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        refused = subprocess.run(second, capture_output=True, text=True, check=False)
        os.kill(process.pid, signal.SIGKILL)
    assert refused.returncode == 1
    assert "is in use by another process" in refused.stderr
    assert subprocess.run(second, check=False).returncode == 0
