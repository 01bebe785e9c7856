"""OpenAI's wire format as msgspec Structs, once: JSON and server-sent events to `Token`; no I/O."""

from justenough.wire.answers import Model, Prompt, Props, Tokens, Version, read_models
from justenough.wire.chunks import (
    Choice,
    Chunk,
    Message,
    OddChunk,
    OtherProtocol,
    Usage,
    error_message,
    error_of,
    is_empty,
)
from justenough.wire.events import DONE, EventReader, event_of, is_end, is_one_event, payload_of
from justenough.wire.lenient import read_chunk, read_other_protocol, read_strictly
from justenough.wire.logprobs import aligned, block_of, entries_of, fitted, is_one_entry, tokens_of
from justenough.wire.values import UNREADABLE, read_json, read_or_none, repaired

__all__ = [
    "DONE",
    "UNREADABLE",
    "Choice",
    "Chunk",
    "EventReader",
    "Message",
    "Model",
    "OddChunk",
    "OtherProtocol",
    "Prompt",
    "Props",
    "Tokens",
    "Usage",
    "Version",
    "aligned",
    "block_of",
    "entries_of",
    "error_message",
    "error_of",
    "event_of",
    "fitted",
    "is_empty",
    "is_end",
    "is_one_entry",
    "is_one_event",
    "payload_of",
    "read_chunk",
    "read_json",
    "read_models",
    "read_or_none",
    "read_other_protocol",
    "read_strictly",
    "repaired",
    "tokens_of",
]
