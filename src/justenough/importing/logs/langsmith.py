"""Runs that LangSmith exports, of LangChain's models and of clients that it wraps.

Source: langsmith-sdk, `schemas.py` (`RunBase`: `run_type`, `inputs`, `outputs`, `extra`). A wrapped client keeps its
whole response as `outputs`. LangChain writes `outputs.generations[][]`, whose message has the log-probabilities under
`response_metadata.logprobs` (langchain-openai, `chat_models/base.py`).
"""

from __future__ import annotations

from justenough.importing.logs.inner import described, replies_in
from justenough.importing.members import first, inside, items, named, objects, text, unpacked
from justenough.importing.recording import Recording, usage
from justenough.importing.servers import server_of
from justenough.trace import Json


def looks_like(value: dict[str, Json]) -> bool:
    """Whether this is a run."""
    return isinstance(value.get("run_type"), str)


def read(value: dict[str, Json]) -> list[Recording]:
    """The reply of a run of a model; runs of chains and tools have none."""
    if value.get("run_type") != "llm":
        return []
    outputs, inputs = unpacked(value.get("outputs")), unpacked(value.get("inputs"))
    # A wrapped client has its parameters beside the messages.
    request: dict[str, Json] = dict(inputs) if isinstance(inputs, dict) else {}
    parameters = inside(value, "extra", "invocation_params")
    request |= parameters if isinstance(parameters, dict) else {}
    if messages := _messages(inputs):
        request["messages"] = messages
    message = _message(outputs)
    replies = replies_in(outputs) if message is None or server_of(outputs) is not None else [_reply(outputs, message)]
    model = named(inside(value, "extra", "metadata", "ls_model_name"))
    return [described(each, request=request, identity=named(value.get("id")), model=model) for each in replies]


def _message(outputs: Json) -> dict[str, Json] | None:
    """The members of the answer's message, with those of its generation that it lacks."""
    rows = items(inside(outputs, "generations"))
    generation = next(iter(objects(rows[0] if rows and isinstance(rows[0], list) else rows)), None)
    message = first(generation, "message") if generation is not None else first(outputs, "message", "output")
    members = inside(message, "kwargs") or message
    info = inside(generation, "generation_info")
    if generation is None and not isinstance(members, dict):
        return None
    members = members if isinstance(members, dict) else {"content": inside(generation, "text")}
    return members if inside(members, "response_metadata") else members | {"response_metadata": info}


def _reply(outputs: Json, message: dict[str, Json]) -> Recording:
    about = message.get("response_metadata")
    tokens = inside(about, "token_usage") or inside(outputs, "llm_output", "token_usage")
    counts = message.get("usage_metadata")
    content = message.get("content")
    parts = "".join(text(part.get("text")) for part in objects(content))
    return Recording(
        choices=[
            {
                "message": {
                    "content": text(content) or parts,
                    "reasoning_content": inside(message, "additional_kwargs", "reasoning_content"),
                    "tool_calls": message.get("tool_calls") or [],
                },
                "logprobs": inside(about, "logprobs"),
                "finish_reason": inside(about, "finish_reason"),
            }
        ],
        usage=tokens or usage(inside(counts, "input_tokens"), inside(counts, "output_tokens")),
        model=named(first(about, "model_name", "model")) or named(inside(outputs, "llm_output", "model_name")),
        ask="ChatOpenAI(..., logprobs=True, top_logprobs=20)",
    )


def _messages(inputs: Json) -> list[Json]:
    """The messages in a form of their own, without LangChain's wrapping."""
    rows = items(inside(inputs, "messages"))
    plain: list[Json] = []
    for row in rows[0] if rows and isinstance(rows[0], list) else rows:
        members = inside(row, "kwargs") or row
        kind = text(first(row, "role", "type")) or ""
        names = items(inside(row, "id"))
        human = kind in ("user", "human") or (bool(names) and names[-1] == "HumanMessage")
        plain.append({"role": "user" if human else "other", "content": inside(members, "content")})
    return plain
