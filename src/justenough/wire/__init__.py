"""OpenAI's wire format as msgspec Structs: JSON and server-sent events to `Token`; no I/O."""
