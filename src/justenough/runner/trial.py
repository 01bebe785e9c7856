"""Finds out by one request whether a model thinks before it answers, and how it marks its thought."""

from __future__ import annotations

from typing import Final, NamedTuple

from justenough.backends.protocol import Backend, Finish, Message, Request
from justenough.grading import Problem
from justenough.runner.settings import RunSettings
from justenough.runner.stream import opened
from justenough.signal.thought import ANY, Follower, ThoughtFormat, closed_in
from justenough.trace import Shape

_LONGEST_TAG: Final = 64
"""Characters that are searched again for a closing tag when a token arrives."""


class Trial(NamedTuple):
    """The outcome of the request."""

    thought: ThoughtFormat | None
    """How the model marks its thought; None if it answers at once."""
    tokens: int
    """Completion tokens until that was clear."""

    @property
    def shape(self) -> Shape:
        """One long thought has streaming steps; without a thought, each completion is a step."""
        return "sequential" if self.thought is None else "streaming"


async def try_thought(
    backend: Backend, problem: Problem, settings: RunSettings, *, known: ThoughtFormat | None = None
) -> Trial:
    """Ask for one long thought and look at how it begins; the request ends as soon as that is clear.

    `known` is the format of a thought that the user has named. An empty thought is none. Raises `BackendError`.
    """
    prompts = backend.prompts
    request = Request(
        messages=(Message("user", prompts.think.format(problem=backend.read(problem.problem))),),
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_k=settings.top_k,
        seed=settings.seed,
        key=(f"{problem.id}#trial", 1),
        needs_logprobs=False,
    )
    follower, tokens, end = Follower(*((known,) if known else ANY)), 0, ""
    async with opened(backend, request) as stream:
        async for item in stream:
            if isinstance(item, Finish):
                break
            tokens += 1
            words = follower.feed(item.text)
            if follower.thought:
                if words and not words.isspace():
                    return Trial(follower.format, tokens)
                if follower.answering:
                    return Trial(None, tokens)
            elif known is None and not follower.shown:
                end = end[-_LONGEST_TAG:] + item.text
                if (format := closed_in(end)) is not None:
                    return Trial(format, tokens)
    return Trial(None, tokens)
