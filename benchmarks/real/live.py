"""The same problems by the server alone and through `justenough serve`: tokens by the server's own counters, and time.

One request runs at a time, so the counters and the clock belong to it. Each answer is kept at once in a file, one line
each; a run that was killed goes on after the last line. The two ways take turns at being the first one, because the
second finds the problem's prompt in the server's cache.

Alone, the sequential shape is a client that asks for all steps; the streaming shape is one completion. `max_tokens` of
a request counts for all of its steps, as in the gateway.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import msgspec
import numpy as np

from benchmarks.real.plan import Plan, Shape
from benchmarks.real.prompts import notation
from benchmarks.real.servers import RunError
from justenough.files import write_text
from justenough.grading import Grader, Problem
from justenough.prompts import Prompts
from justenough.stats import Estimate, change_interval, saving_bootstrap

Way = Literal["alone", "gateway"]
WAYS: Final[tuple[Way, Way]] = ("alone", "gateway")
TIMEOUT: Final = 900.0
"""Seconds for one answer."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One answer."""

    way: Way
    id: str
    correct: bool
    tokens: int
    """Completion tokens by the server's own counter."""
    prompt_tokens: int
    """Prompt tokens that the server read, by its own counter; tokens from its cache are not among them."""
    seconds: float
    decision: str = ""
    """The gateway's: `stopped`, `finished`, or why it did not gate."""
    steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The comparison of the two ways."""

    problems: int
    accuracy_alone: float
    accuracy_gateway: float
    accuracy_change: Estimate
    tokens_alone: int
    tokens_gateway: int
    saving: Estimate | None
    seconds_alone: float
    seconds_gateway: float
    time_saving: Estimate | None
    prompt_tokens_alone: int
    prompt_tokens_gateway: int
    decisions: dict[str, int]


class Client:
    """Asks one server; `counters` is the address of the llama.cpp server that generates the tokens."""

    def __init__(self, counters: str, plan: Plan, *, shape: Shape, model: str) -> None:
        self.plan = plan
        self.shape = shape
        self.model = model
        self.notation = notation(plan.prompts[shape])
        self.prompts: Prompts = self.notation.prompts
        self.limit = plan.max_tokens * (plan.steps if shape == "sequential" else 1)
        self._counters = counters
        self._http = httpx.Client(timeout=TIMEOUT, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def answer(self, way: Way, url: str, problem: Problem, grader: Grader) -> Row:
        """Answer a problem; raises `RunError` if the server does not."""
        begun, before = time.monotonic(), self._counted()
        decision, steps = "", 1
        if way == "alone":
            texts = self._alone(url, problem)
            text, steps = texts[-1], len(texts)
        else:
            reply = self._post(url, self._first(problem), limit=self.limit)
            text = reply["choices"][0]["message"].get("content") or ""
            report = reply.get("justenough") or {"decision": "relayed", "reason": "no report"}
            decision = report["decision"]
            if decision not in ("stopped", "finished"):
                decision += f": {report['reason']}"
            steps = report.get("steps", report.get("step", 0))
        seconds = time.monotonic() - begun
        after = self._counted()
        answer = grader.extract(text)
        return Row(
            way=way,
            id=problem.id,
            correct=answer is not None and grader.grade(answer, problem.target or ""),
            tokens=after[0] - before[0],
            prompt_tokens=after[1] - before[1],
            seconds=seconds,
            decision=decision,
            steps=steps,
        )

    def first_tokens(self, url: str, problem: Problem) -> int:
        """Completion tokens of one step, by the server's answer."""
        reply = self._post(url, self._first(problem), limit=self.plan.max_tokens)
        return int(reply["usage"]["completion_tokens"])

    def _first(self, problem: Problem) -> list[dict[str, str]]:
        template = self.prompts.ask if self.shape == "sequential" else self.prompts.think
        return [{"role": "user", "content": template.format(problem=self.notation.read(problem.problem))}]

    def _alone(self, url: str, problem: Problem) -> list[str]:
        """The texts of all steps."""
        messages, left = self._first(problem), self.limit
        texts: list[str] = []
        while left > 0 and len(texts) < (self.plan.steps if self.shape == "sequential" else 1):
            reply = self._post(url, messages, limit=left)
            texts.append(reply["choices"][0]["message"].get("content") or "")
            left -= reply["usage"]["completion_tokens"]
            messages = [*messages, {"role": "assistant", "content": texts[-1]}]
            messages.append({"role": "user", "content": self.prompts.refine})
        return texts

    def _post(self, url: str, messages: Sequence[dict[str, str]], *, limit: int) -> dict[str, Any]:
        body = {
            "model": self.model,
            "messages": messages,
            "max_tokens": limit,
            "temperature": self.plan.temperature,
            "seed": 0,
        }
        try:
            response = self._http.post(f"{url}/v1/chat/completions", json=body)
            response.raise_for_status()
        except httpx.HTTPStatusError as error:
            raise RunError(f"{url} answered {error.response.status_code}: {error.response.text[:300]}") from error
        except httpx.HTTPError as error:
            raise RunError(f"{url} did not answer: {error or type(error).__name__}") from error
        reply: dict[str, Any] = response.json()
        return reply

    def _counted(self) -> tuple[int, int]:
        """Completion and prompt tokens so far, once no stream is under way: a cancelled one is counted at its end."""
        until = time.monotonic() + TIMEOUT
        try:
            while any(slot["is_processing"] for slot in self._http.get(f"{self._counters}/slots").json()):
                if time.monotonic() > until:
                    raise RunError(f"{self._counters} did not end a stream that nobody reads")
                time.sleep(0.02)
            page = self._http.get(f"{self._counters}/metrics").text
        except httpx.HTTPError as error:
            raise RunError(f"{self._counters} did not answer: {error or type(error).__name__}") from error
        values = dict(line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("llamacpp:"))
        return int(float(values["llamacpp:tokens_predicted_total"])), int(float(values["llamacpp:prompt_tokens_total"]))


class Record:
    """The answers of a live run, kept one line each; answers of another calibration or plan are not taken over."""

    def __init__(self, path: Path, *, digest: str) -> None:
        self._path = path
        self.rows: dict[tuple[str, str], Row] = {}
        header = json.dumps({"live": digest}) + "\n"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        if lines and lines[0] + b"\n" == header.encode():
            for number, line in enumerate(lines[1:], 2):
                try:
                    row = msgspec.json.decode(line, type=Row)
                except msgspec.DecodeError as error:
                    raise RunError(f"{path}:{number} is no answer: delete this line, and run again") from error
                self.rows[row.way, row.id] = row
        # Written anew: a killed process may have left half a line.
        write_text(path, header + "".join(msgspec.json.encode(row).decode() + "\n" for row in self.rows.values()))

    def append(self, row: Row) -> None:
        """Keep a row; it survives the process."""
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(row) + b"\n")
        self.rows[row.way, row.id] = row


def run_live(
    client: Client,
    record: Record,
    problems: Sequence[Problem],
    urls: dict[Way, str],
    *,
    grader: Grader,
    progress: Callable[[str], None],
) -> Live:
    """Answer the problems that the record does not hold yet, in both ways, and compare."""
    tokens = 0
    for number, problem in enumerate(problems):
        for way in WAYS if number % 2 == 0 else reversed(WAYS):
            if (way, problem.id) not in record.rows:
                row = client.answer(way, urls[way], problem, grader)
                record.append(row)
                tokens += row.tokens
        progress(f"live: {number + 1}/{len(problems)} problems, {tokens:,} tokens")
    return compare([(record.rows["alone", each.id], record.rows["gateway", each.id]) for each in problems])


def compare(pairs: Sequence[tuple[Row, Row]]) -> Live:
    """The comparison of pairs (alone, gateway)."""
    alone, gated = ([pair[at] for pair in pairs] for at in (0, 1))
    right, kept = (np.array([row.correct for row in rows], dtype=np.float64) for rows in (alone, gated))
    spent, needed = (np.array([row.tokens for row in rows], dtype=np.float64) for rows in (alone, gated))
    clock, shorter = (np.array([row.seconds for row in rows]) for rows in (alone, gated))
    decisions: dict[str, int] = {}
    for row in gated:
        decisions[row.decision] = decisions.get(row.decision, 0) + 1
    return Live(
        problems=len(pairs),
        accuracy_alone=float(right.mean()),
        accuracy_gateway=float(kept.mean()),
        accuracy_change=change_interval(kept.astype(bool), right.astype(bool)),
        tokens_alone=int(spent.sum()),
        tokens_gateway=int(needed.sum()),
        saving=saving_bootstrap(needed, spent),
        seconds_alone=float(clock.sum()),
        seconds_gateway=float(shorter.sum()),
        time_saving=saving_bootstrap(shorter, clock),
        prompt_tokens_alone=sum(row.prompt_tokens for row in alone),
        prompt_tokens_gateway=sum(row.prompt_tokens for row in gated),
        decisions=decisions,
    )
