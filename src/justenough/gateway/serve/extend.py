"""The requests of a sequential job: what the next step asks, and which server it asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.place import Place
from justenough.gateway.serve.elicit import UNNAMED, Piece, UpstreamRequest, common_members, continuation
from justenough.gateway.serve.work import Job
from justenough.gateway.stream.merge import Merged
from justenough.gateway.upstream.capability import JSON
from justenough.gateway.upstream.client import Upstream
from justenough.gateway.upstream.formats import UNCONFIGURED, Formats
from justenough.signal.thought import Follower, ThoughtFormat
from justenough.trace import Json
from justenough.wire.others import is_answer, others_of

EFFORTS: Final = ("low", "medium", "high")


@dataclass(slots=True)
class CompletionStep:
    """The output of one step."""

    formats: Formats = UNCONFIGURED
    """The formats that its thought may have."""
    reasoning: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)
    tokens: int = 0
    bits: list[float] = field(default_factory=list)
    """Entropy of each token with log-probabilities; only in audited requests."""
    finish: str | None = None
    counted: int | None = None
    """Completion tokens by the upstream's own count."""
    unseen: int = 0
    """Tokens that texts since that count may hold beyond one each, without log-probabilities."""
    model: str | None = None
    others: Merged = field(default_factory=Merged)
    """What its message has beside texts and calls of tools, such as a refusal or images."""
    foreign: bool = False
    """Whether its last event is no chunk."""

    def add(self, reasoning: str, content: str, payload: bytes) -> None:
        """Add the texts of an event, and what its message has beside them."""
        self.reasoning += [reasoning] if reasoning else []
        self.content.append(content)
        self.others.add(others_of(payload))

    @property
    def delta(self) -> dict[str, Json]:
        """The answer as the members of a chat's delta."""
        return {"content": self.answer} | Piece(self.answer, others=self.others.whole()).delta

    @property
    def is_only_other(self) -> bool:
        """Whether its answer is something else than a text, so that nothing can be asked about it."""
        return is_answer(self.others.whole()) and not self.answer.strip()

    def ends(self, *, done: bool) -> bool:
        """Whether it is complete after the last byte of its stream; `done`: whether the stream said so."""
        if self.finish is None and done and self.tokens and not self.foreign:
            self.finish = "stop"
        return self.finish is not None

    @property
    def text(self) -> str:
        """The step's text without a separate thought; the next step's prompt contains it."""
        return "".join(self.content)

    @property
    def apart(self) -> bool:
        """Whether its thought came in a field of its own."""
        return bool(self.reasoning)

    @property
    def format(self) -> ThoughtFormat:
        """The format of its thought, as its opening tag shows."""
        return self._followed.format

    @property
    def _followed(self) -> Follower:
        follower = Follower(self.formats.thought, *self.formats.others)
        follower.feed("".join(self.reasoning) or self.text)
        return follower

    @property
    def continuable(self) -> bool:
        """Whether the model can continue its thought: in the text it has its tags, else they must be known."""
        return not self.apart or self.formats.known or self._followed.shown

    @property
    def thought(self) -> str:
        """The thought without its closing tag; the whole text if no answer follows."""
        return "".join(self.reasoning) or self.format.thought_of(self.text)

    @property
    def answer(self) -> str:
        """The text after the thought."""
        answer = self.format.answer_of(self.text)
        return self.text if answer == self.text else answer.lstrip("\n")

    @property
    def generated(self) -> int:
        """Completion tokens, the larger of both counts."""
        return max(self.tokens, self.counted or 0)


def server_of(job: Job, number: int) -> tuple[Upstream, RawHeaders]:
    """The server for a step (from 1) and the headers for it; the second server never gets the client's headers."""
    if job.cascade is not None and number > 1:
        return job.cascade, JSON
    exchange = job.exchange
    return job.upstream, exchange.headers_for_new_body if number == 1 else exchange.headers_for_further_request


async def next_request(job: Job, steps: Sequence[CompletionStep], *, left: int | None) -> UpstreamRequest:
    """The request for the step after these; `left`: completion tokens, if they are limited."""
    request, settings = job.request, job.settings
    target, changed = request.place.target(), {**common_members(job, left), **(UNNAMED if steps else {})}
    if settings.cascade is not None and steps:
        second = Place(kind="chat").target()
        return UpstreamRequest(second, request.with_fields(**changed, model=settings.cascade.model))
    top = max(job.top_k, request.top_logprobs)
    changed |= {"logprobs": True, "top_logprobs": top}
    if settings.extend == "effort":
        changed["reasoning_effort"] = EFFORTS[min(len(steps), len(EFFORTS) - 1)]
    elif settings.extend == "wait" and steps:
        if not steps[0].continuable:
            raise Refused(502, "the tags of the thought are not known", code="unknown_tags")
        thought = "".join(f"{step.thought.rstrip()}{settings.prompts.wait}" for step in steps)
        format = steps[0].format
        text = format.with_tag(thought) if steps[0].apart or format.opened else thought
        return await continuation(job, text, left=left, top=top)
    elif steps:
        messages: list[object] = list(msgspec.json.decode(request.fields["messages"], type=list[msgspec.Raw]))
        for step in steps:
            messages.append({"role": "assistant", "content": step.text})
            messages.append({"role": "user", "content": settings.prompts.refine})
        changed["messages"] = messages
    return UpstreamRequest(target, request.with_fields(**changed))
