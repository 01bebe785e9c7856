"""What both shapes share: the way to the client, the answer's members, and the outcome."""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec

from justenough.gateway.plan import Ended, Report
from justenough.gateway.serve.job import Job
from justenough.trace import Json


class Work(ABC):
    """Serves one job."""

    def __init__(self, job: Job) -> None:
        self.job, self.request, self.plan = job, job.request, job.plan
        self.relayed = False
        """Whether the upstream's own answer was relayed: an error, or an answer that is not a stream."""
        self.out_of_budget = False
        """Whether the request ended because its budget was spent."""
        self.failure: str | None = None
        """Why the last step failed; then the answer is that of the step before."""
        self.probe_tokens = 0
        self._output = job.output()
        self._head: dict[str, Json] = {}
        """The members that all chunks of this answer share."""

    @abstractmethod
    async def run(self) -> None:
        """Answer the client; raises `Refused`, or `RequestRefused` before anything was sent."""

    @abstractmethod
    def report(self) -> Report:
        """The `justenough` object of the answer."""

    @property
    @abstractmethod
    def stopped(self) -> bool:
        """Whether the gate stopped, or would have stopped in an audited sequence."""

    @property
    def unseen(self) -> int:
        """Tokens that may have been generated beyond those counted."""
        return 0

    @property
    def ended(self) -> Ended | None:
        """What ended the request early."""
        return "budget" if self.out_of_budget else "stopped" if self.stopped else None

    @property
    def id(self) -> str | None:
        """The answer's id."""
        value = self._head.get("id")
        return value if isinstance(value, str) else None

    def _encoded(self, row: dict[str, Json], justenough: Report | None = None) -> bytes:
        """A chunk of the answer; the last one contains the report."""
        chunk: dict[str, Json] = self._head | {"choices": [row]}
        if row["finish_reason"] is not None:
            justenough = self.report()
        return msgspec.json.encode(chunk if justenough is None else chunk | {"justenough": justenough})

    async def _send_usage(self, *, prompt: int, completion: int, reasoning: int) -> None:
        """Send the usage event, unless the client of a stream did not ask for it."""
        if self.request.stream and not self.request.include_usage:
            return
        usage: dict[str, Json] = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
        await self._output.send([msgspec.json.encode(self._head | {"choices": [], "usage": usage})])
