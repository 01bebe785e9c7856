"""Replies of Ollama's own `/api/generate` and `/api/chat`, whole or as the lines of a stream.

Source: ollama, `api/types.go` (`GenerateResponse`, `ChatResponse`, `Logprob`); log-probabilities since version 0.12.11.
"""

from __future__ import annotations

from justenough.importing.members import first, inside, items, named, text
from justenough.importing.recording import Recording, choice, usage
from justenough.trace import Json


def looks_like(value: dict[str, Json]) -> bool:
    """Whether this is one reply or a piece of one."""
    return isinstance(value.get("done"), bool) and ("response" in value or "message" in value)


def read(value: dict[str, Json]) -> list[Recording]:
    """The reply, which has one choice."""
    done = value.get("done") is True
    message = value.get("message") if "message" in value else value
    content = text(first(message, "content", "response"))
    return [
        Recording(
            choices=[
                choice(
                    content,
                    items(value.get("logprobs")),
                    finish=(value.get("done_reason") or "stop") if done else None,
                    reasoning=text(inside(message, "thinking")),
                    tool_calls=inside(message, "tool_calls"),
                )
            ],
            usage=usage(value.get("prompt_eval_count"), value.get("eval_count")),
            model=named(value.get("model")),
            # The last piece of a stream is empty.
            stream=f"ollama {value.get('model')}" if not done or not content else None,
            ends=done,
        )
    ]
