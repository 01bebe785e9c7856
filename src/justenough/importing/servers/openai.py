"""Chat and text completions of OpenAI and of all servers that imitate it, whole or as chunks of a stream.

Source: openai-python, `types/chat/chat_completion.py` and `chat_completion_chunk.py`, `types/completion.py`.
"""

from __future__ import annotations

from justenough.errors import TraceFormatError
from justenough.importing.members import items, named, objects
from justenough.importing.recording import Recording
from justenough.trace import Json
from justenough.wire.chunks import error_message


def looks_like(value: dict[str, Json]) -> bool:
    """Whether this is a completion or a chunk of one."""
    return isinstance(value.get("choices"), list) or str(value.get("object")).startswith(
        ("chat.completion", "text_completion")
    )


def read(value: dict[str, Json]) -> list[Recording]:
    """The completion, which has one choice for each answer."""
    if (words := error_message(value)) is not None:
        raise TraceFormatError(f"the server answered with an error: {words}")
    choices = value.get("choices")
    if choices is not None and not isinstance(choices, list):
        raise TraceFormatError(f"choices is {str(choices)[:80]!r}, expected a list")
    chunk = str(value.get("object")).endswith(".chunk") or any("delta" in each for each in objects(choices))
    identity = named(value.get("id"))
    # The pieces of a text completion are not called chunks; the last one has the usage and no choice.
    text = value.get("object") == "text_completion"
    if not choices and not chunk:
        if text and value.get("usage"):
            return []
        raise TraceFormatError("the response has no choices")
    finishes = [each.get("finish_reason", "unknown") for each in objects(choices)]
    report = value.get("justenough")
    return [
        Recording(
            choices=items(choices),
            usage=value.get("usage"),
            id=identity,
            model=named(value.get("model")),
            stream=f"openai {identity}" if chunk or text else None,
            ends=text and not chunk and None not in finishes,
            extra={"justenough": report} if report else {},
        )
    ]
