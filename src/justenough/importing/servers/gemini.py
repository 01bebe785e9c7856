"""Replies of the Gemini API and of Vertex AI, whole or as pieces of a stream, also with the names of the Python client.

Source: python-genai, `types.py` (`GenerateContentResponse`, `LogprobsResult`): `candidates[].logprobsResult` has
`topCandidates[].candidates[]` and `chosenCandidates[]` with `token` and `logProbability`.
"""

from __future__ import annotations

from typing import Final

from justenough.importing.members import count, first, inside, items, named, objects, text
from justenough.importing.recording import Recording, choice, entry, usage
from justenough.trace import Json

_FINISH: Final = {"STOP": "stop", "MAX_TOKENS": "length"}


def looks_like(value: dict[str, Json]) -> bool:
    """Whether this is one reply or a piece of one."""
    return any("content" in each or "finishReason" in each for each in objects(value.get("candidates")))


def read(value: dict[str, Json]) -> list[Recording]:
    """The reply, which has one choice for each candidate."""
    candidates = objects(value.get("candidates"))
    used = first(value, "usageMetadata", "usage_metadata")
    counts = [
        count(first(used, "candidatesTokenCount", "candidates_token_count")),
        count(first(used, "thoughtsTokenCount", "thoughts_token_count")),
    ]
    identity = named(first(value, "responseId", "response_id"))
    ended = any(first(candidate, "finishReason", "finish_reason") is not None for candidate in candidates)
    return [
        Recording(
            choices=[_choice(candidate, at) for at, candidate in enumerate(candidates)],
            usage=usage(
                first(used, "promptTokenCount", "prompt_token_count"),
                None if counts[0] is None else counts[0] + (counts[1] or 0),
            ),
            id=identity,
            model=named(first(value, "modelVersion", "model_version")),
            stream=f"gemini {identity}",
            ends=ended,
            ask="responseLogprobs: true, logprobs: 20",
        )
    ]


def _choice(candidate: dict[str, Json], at: int) -> Json:
    parts = objects(inside(candidate, "content", "parts"))
    reason = text(first(candidate, "finishReason", "finish_reason")).rpartition(".")[2]
    calls: list[Json] = [part for part in parts if first(part, "functionCall", "function_call") is not None]
    return choice(
        "".join(text(part.get("text")) for part in parts if not part.get("thought")),
        _entries(first(candidate, "logprobsResult", "logprobs_result")),
        finish=_FINISH.get(reason, reason.lower() or None),
        reasoning="".join(text(part.get("text")) for part in parts if part.get("thought")),
        index=at,
        tool_calls=calls,
    )


def _entries(result: Json) -> list[Json]:
    tops = items(first(result, "topCandidates", "top_candidates"))
    chosen = items(first(result, "chosenCandidates", "chosen_candidates")) or [None] * len(tops)
    tops = tops or [None] * len(chosen)
    return [
        entry(inside(own, "token"), _logprob(own), [_logprob(each) for each in objects(inside(row, "candidates"))])
        for own, row in zip(chosen, tops, strict=False)
    ]


def _logprob(candidate: Json) -> Json:
    return first(candidate, "logProbability", "log_probability")
