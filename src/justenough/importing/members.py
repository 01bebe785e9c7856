"""Members of JSON values of unknown shape: each function returns an empty value where a member has another type."""

from __future__ import annotations

import json
import sys
from typing import Final, cast

from justenough.files import is_shallow
from justenough.trace import Json

_OPTIONS: Final = ("options", "generationConfig", "generation_config", "config", "sampling_params")
"""Members of a request that hold the options of the generation: of Ollama, of Gemini and its client, of SGLang."""


def inside(value: Json, *keys: str) -> Json:
    """The value under nested keys: `inside(value, "a", "b")` is `value["a"]["b"]`; None if a key is not there."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def first(value: Json, *keys: str) -> Json:
    """The value of the first of these keys that is there; None if there is none."""
    if not isinstance(value, dict):
        return None
    return next((value[key] for key in keys if value.get(key) is not None), None)


def objects(value: Json) -> list[dict[str, Json]]:
    """The objects of a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def items(value: Json) -> list[Json]:
    """The list itself; empty if the value is not a list."""
    return value if isinstance(value, list) else []


def text(value: Json) -> str:
    """The text itself; empty if the value is not a text."""
    return value if isinstance(value, str) else ""


def named(value: Json) -> str | None:
    """A text or a whole number as a name; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value) or None


def number(value: Json) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None
    return float(value)


def numeric(value: Json) -> float | None:
    """Like `number`, but a number may also be written as a text."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return number(value)


def count(value: Json) -> int | None:
    """A whole number from 0; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


def unpacked(value: Json) -> Json:
    """The JSON value that a text holds, or the list of them in server-sent events; any other value itself."""
    if isinstance(value, str) and value.lstrip().startswith(("data:", "event:")):
        return [unpacked(line.removeprefix("data:").strip()) for line in value.splitlines() if line.startswith("data:")]
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        inner = cast("Json", json.loads(value))
    except (ValueError, RecursionError):
        return value
    return inner if is_shallow(inner) else value


def temperature_in(request: Json) -> float | None:
    """The sampling temperature in a request, or in the options of the generation inside it."""
    places = [request, *(inside(request, name) for name in _OPTIONS)]
    return next((value for place in places if (value := numeric(inside(place, "temperature"))) is not None), None)


def problem_in(request: Json) -> str | None:
    """The text of the last message by the user in a request: `messages`, `input`, `prompt` or Gemini's `contents`."""
    turns_or_text = first(request, "messages", "input", "prompt", "contents") if isinstance(request, dict) else request
    if isinstance(turns_or_text, str):
        return turns_or_text or None
    if isinstance(turns_or_text, dict):
        return problem_in(turns_or_text)
    turns = [turn for turn in objects(turns_or_text) if turn.get("role") in ("user", "human", None)]
    content = first(turns[-1], "content", "parts") if turns else None
    if isinstance(content, list):
        return "".join(text(part.get("text")) for part in objects(content)) or None
    return text(content) or None
