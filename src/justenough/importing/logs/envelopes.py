"""Records of one request and its response: OpenAI's Batch API, LiteLLM, and logs of the form `{request, response}`.

Sources: OpenAI's Batch API guide (`custom_id`, `response.status_code`, `response.body`, `error`); litellm,
`types/utils.py` (`StandardLoggingPayload`: `model`, `messages`, `model_parameters`, `response`, `status`, `error_str`).
"""

from __future__ import annotations

from justenough.errors import TraceFormatError
from justenough.importing.logs.inner import described, replies_in
from justenough.importing.members import first, inside, named, text, unpacked
from justenough.importing.recording import Recording
from justenough.importing.servers import server_of
from justenough.trace import Json
from justenough.wire.chunks import error_message

_RESPONSES = ("response", "response_body", "raw_response")
_REQUESTS = ("request", "request_body", "messages", "model_parameters", "custom_id", "call_type", "prompt", "input")


def looks_like(value: dict[str, Json]) -> bool:
    """Whether this is a request with its response."""
    if server_of(value) is not None:
        return False
    if inside(value, "kwargs", "standard_logging_object") is not None:
        return True
    response = unpacked(first(value, *_RESPONSES))
    return any(name in value for name in _RESPONSES) and (
        any(name in value for name in _REQUESTS) or server_of(inside(response, "body") or response) is not None
    )


def read(value: dict[str, Json]) -> list[Recording]:
    """The reply in the response, with what the request says about it."""
    inner = inside(value, "kwargs", "standard_logging_object")
    if isinstance(inner, dict):
        value = inner
    response = unpacked(first(value, *_RESPONSES))
    request = unpacked(first(value, "request", "request_body"))
    request = unpacked(inside(request, "body")) or request
    if request is None:
        parameters = value.get("model_parameters")
        request = value | (parameters if isinstance(parameters, dict) else {})
    body = unpacked(first(response, "body", "json")) if isinstance(response, dict) else response
    status = first(response, "status_code", "status") if body is not None else None
    if body is None or server_of(body) is None:
        body = body if body is not None else response
        if not body or value.get("error") or value.get("status") == "failure":
            words = text(value.get("error_str")) or error_message(value) or error_message(body)
            raise TraceFormatError(f"the request failed: {words or 'it has no response'}")
    if isinstance(status, int) and status != 200:
        raise TraceFormatError(f"the request failed with status {status}: {error_message(body) or 'no message'}")
    identity = named(first(value, "custom_id", "id", "request_id", "trace_id"))
    model = named(value.get("model"))
    return [described(each, request=request, identity=identity, model=model) for each in replies_in(body, response)]
