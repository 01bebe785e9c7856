"""Mathematical equivalence by `math-verify`, in a worker process with a time limit.

The library uses alarm signals, which work only in the main thread, and some expressions never end. So it runs in its
own process, which is replaced if it does not answer in time.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from typing import Final

from justenough.errors import InputError, MissingExtra
from justenough.grading.graders import Grader

LIMIT_S: Final = 10.0
_START_S: Final = 120.0


class MathGrader(Grader):
    """Grades LaTeX and plain expressions; an answer that cannot be compared in time is wrong."""

    def __init__(self, *, limit_s: float = LIMIT_S) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise MissingExtra("math-verify", extra="math")
        self._limit = limit_s
        self._pool: ProcessPoolExecutor | None = None
        # One expression at a time: the time limit must not include waiting for another thread.
        self._lock = threading.Lock()

    def grade(self, answer: str, target: str) -> bool:
        """Whether the expressions are mathematically equal; raises `InputError` if the worker cannot start."""
        if "".join(answer.split()) == "".join(target.split()):
            return True
        with self._lock:
            for _ in range(2):
                try:
                    return self._worker().submit(_equal, answer, target).result(timeout=self._limit)
                except FutureTimeout:
                    self._stop()
                    return False
                except BrokenProcessPool:
                    self._stop()
        return False

    def close(self) -> None:
        """Stop the worker."""
        with self._lock:
            self._stop()

    def _worker(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Spawned, not forked: a fork of a process with threads can lock up.
            self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
            # The start takes seconds on a busy machine; the time limit must not include it.
            try:
                self._pool.submit(_ready).result(timeout=_START_S)
            except (BrokenProcessPool, FutureTimeout) as error:
                # Otherwise every answer would count as wrong, without a reason.
                self._stop()
                late = f" within {_START_S:g} s" if isinstance(error, FutureTimeout) else ""
                raise InputError(
                    f"the process that compares expressions does not start{late}",
                    hint="a script of your own must be a file and begin under `if __name__ == '__main__':`",
                ) from error
        return self._pool

    def _stop(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=True, cancel_futures=True)


def _ready() -> None:
    import math_verify  # noqa: F401


def _equal(answer: str, target: str) -> bool:
    """Runs in the worker's main thread."""
    from math_verify import parse, verify

    return bool(verify(parse(f"${target}$"), parse(f"${answer}$")))
