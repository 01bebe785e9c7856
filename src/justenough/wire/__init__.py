"""The OpenAI wire format: JSON (`chunks`) and server-sent events (`events`), to `Token` and back; no I/O."""

from justenough.wire.chunks import (
    NOTHING,
    Choice,
    Chunk,
    Usage,
    aligned,
    chat_chunk,
    chat_response,
    chunk_json,
    completion_chunk,
    completion_response,
    error_message,
    logprobs_json,
    read_json,
)
from justenough.wire.events import DONE, EVENT_LIMIT, EventReader, event, event_of, is_one_event, payload_of

__all__ = [
    "DONE",
    "EVENT_LIMIT",
    "NOTHING",
    "Choice",
    "Chunk",
    "EventReader",
    "Usage",
    "aligned",
    "chat_chunk",
    "chat_response",
    "chunk_json",
    "completion_chunk",
    "completion_response",
    "error_message",
    "event",
    "event_of",
    "is_one_event",
    "logprobs_json",
    "payload_of",
    "read_json",
]
