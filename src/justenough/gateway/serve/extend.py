"""How a sequential request goes on: what the next step is asked, and whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from justenough.gateway.exchange import RawHeaders
from justenough.gateway.request import LENGTHS, Asked
from justenough.gateway.serve.elicit import Asking, continuation
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.upstream.capability import JSON, Capabilities
from justenough.gateway.upstream.client import Upstream
from justenough.thought import THINK, ThoughtFormat

EFFORTS: Final = ("low", "medium", "high")


@dataclass(slots=True)
class Said:
    """What one step has said."""

    format: ThoughtFormat = THINK
    reasoning: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)
    tokens: int = 0
    bits: list[float] = field(default_factory=list)
    """Entropy of each token that came with log-probabilities; only where the request is audited."""
    finish: str | None = None
    prompt_tokens: int | None = None
    counted: int | None = None
    """Completion tokens by the upstream's own count."""
    model: str | None = None
    """Who said it, by the upstream's own name."""

    @property
    def text(self) -> str:
        """The step's text without a thought that came in a field of its own: what the model is shown again."""
        return "".join(self.content)

    @property
    def thought(self) -> str:
        """What was thought, unclosed; all of it where no answer follows."""
        return "".join(self.reasoning) or self.format.thought_of(self.text)

    @property
    def answer(self) -> str:
        """What follows the thought."""
        answer = self.format.answer_of(self.text)
        return self.text if answer == self.text else answer.lstrip("\n")

    @property
    def generated(self) -> int:
        """Completion tokens, the larger of both counts."""
        return max(self.tokens, self.counted or 0)


class Extender:
    """Makes the requests of one sequence."""

    def __init__(
        self,
        asked: Asked,
        *,
        upstream: Upstream,
        cascade: Upstream | None,
        settings: GatewaySettings,
        capabilities: Capabilities,
        headers: RawHeaders,
        top: int,
    ) -> None:
        self._asked = asked
        self._upstream = upstream
        self._cascade = cascade
        self._settings = settings
        self._capabilities = capabilities
        self._headers = headers
        self._top = top

    def server(self, number: int) -> Upstream:
        """Who is asked for a step, by its number from 1."""
        return self._cascade if self._cascade is not None and number > 1 else self._upstream

    def headers(self, number: int) -> RawHeaders:
        """The client's, for the server that it knows; its key is not for another."""
        return self._headers if self.server(number) is self._upstream else JSON

    async def asking(self, steps: Sequence[Said], *, left: int | None) -> Asking:
        """The request for the step after these; `left`: completion tokens, where they are bounded."""
        asked, settings = self._asked, self._settings
        target = "/v1/chat/completions"
        changed: dict[str, object] = {"stream": True, "stream_options": {"include_usage": True}}
        if left is not None:
            changed |= {key: left for key in LENGTHS if key in asked.fields}
        if settings.cascade is not None and steps:
            return Asking(target, asked.with_fields(**changed, model=settings.cascade.model))
        changed |= {"logprobs": True, "top_logprobs": self._top}
        if settings.extend == "effort":
            changed["reasoning_effort"] = EFFORTS[min(len(steps), len(EFFORTS) - 1)]
        elif settings.extend == "wait" and steps:
            return await continuation(
                self._upstream,
                self._capabilities,
                asked,
                self._waiting(steps),
                thought=settings.prompts.thought,
                headers=self._headers,
                left=left,
                top=self._top,
            )
        elif steps:
            messages: list[object] = list(msgspec.json.decode(asked.fields["messages"], type=list[msgspec.Raw]))
            for step in steps:
                messages.append({"role": "assistant", "content": step.text})
                messages.append({"role": "user", "content": settings.prompts.refine})
            changed["messages"] = messages
        return Asking(target, asked.with_fields(**changed))

    def _waiting(self, steps: Sequence[Said]) -> str:
        """All that was thought so far, unclosed, with the word that makes the model doubt."""
        prompts = self._settings.prompts
        thought = "".join(f"{step.thought.rstrip()}{prompts.wait}" for step in steps)
        return prompts.thought.with_tag(thought) if any(steps[0].reasoning) else thought
