"""Replies of OpenAI's Responses API, whole or in the last event of a stream.

Source: openai-python, `types/responses/response.py` and `response_output_text.py`: `output[].content[].logprobs`.
"""

from __future__ import annotations

from typing import Final

from justenough.errors import TraceFormatError
from justenough.importing.members import inside, items, named, number, objects, problem_in, text
from justenough.importing.recording import Recording, choice, usage
from justenough.trace import Json
from justenough.wire.chunks import error_message

_LAST: Final = ("response.completed", "response.incomplete", "response.failed")


def looks_like(value: dict[str, Json]) -> bool:
    """Whether this is a response, or an event of a stream of one."""
    outputs = objects(value.get("output"))
    return (
        value.get("object") == "response"
        or text(value.get("type")).startswith("response.")
        or any(each.get("type") in ("message", "reasoning") for each in outputs)
    )


def read(value: dict[str, Json]) -> list[Recording]:
    """The response; nothing for an event before the last one, which repeats the whole response."""
    if (event := text(value.get("type"))).startswith("response."):
        response = value.get("response")
        return read(response) if event in _LAST and isinstance(response, dict) else []
    if value.get("status") == "failed":
        raise TraceFormatError(f"the server answered with an error: {error_message(value) or 'no message'}")
    parts = [part for item in objects(value.get("output")) for part in objects(item.get("content"))]
    answer = [part for part in parts if part.get("type") == "output_text"]
    thought = [part for part in parts if part.get("type") == "reasoning_text"]
    cut = inside(value, "incomplete_details", "reason") == "max_output_tokens"
    calls: list[Json] = [item for item in objects(value.get("output")) if text(item.get("type")).endswith("_call")]
    return [
        Recording(
            choices=[
                choice(
                    "".join(text(part.get("text")) for part in answer),
                    [entry for part in answer for entry in items(part.get("logprobs"))],
                    finish="length" if cut else "stop",
                    reasoning="".join(text(part.get("text")) for part in thought),
                    tool_calls=calls,
                )
            ],
            usage=usage(inside(value, "usage", "input_tokens"), inside(value, "usage", "output_tokens")),
            id=named(value.get("id")),
            model=named(value.get("model")),
            problem=problem_in(value.get("input")),
            temperature=number(value.get("temperature")),
            ask='include: ["message.output_text.logprobs"], top_logprobs: 20',
        )
    ]
