"""OpenAI's JSON to `Token` and back; no I/O.

Servers differ in what they send: OpenAI and vLLM give `logprobs.content` with chats and parallel lists with
completions, llama.cpp gives `content` with both; vLLM adds the sampled token to the k most likely; reasoning comes as
`reasoning_content` or `reasoning`, its log-probabilities with the others or, from DeepSeek, in a `reasoning_content` of
their own. All end as the same `Chunk`. What cannot be read raises `BackendRejected`, with status 502.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, cast

from justenough.trace import Json, Token
from justenough.wire.events import unreadable

NOTHING: Final = -9999.0
"""Stands for a log-probability of minus infinity in JSON, as OpenAI and vLLM write it."""

_RESYNC: Final = 64


class Usage(NamedTuple):
    """What the server counted; None where it did not say."""

    prompt_tokens: int | None
    completion_tokens: int | None


class Choice(NamedTuple):
    """One answer, or the piece of it that one chunk brings."""

    number: int
    text: str
    reasoning: str
    """What the server took out of the text as reasoning."""
    tokens: tuple[Token, ...]
    """One for each entry of log-probabilities; `top_logprobs` fall, and may be more than were asked for."""
    finish: str | None


class Chunk(NamedTuple):
    """One event of a stream, or one whole response."""

    choices: tuple[Choice, ...]
    usage: Usage | None
    error: str | None
    """The server's own words where it sent an error instead."""
    model: str | None


def read_json(payload: str | bytes) -> Json:
    """One JSON value; raises `BackendRejected` for what is none, NaN among it."""
    try:
        return cast("Json", json.loads(payload, parse_constant=_constant))
    except (ValueError, RecursionError) as error:
        shown = payload[:80] if isinstance(payload, str) else payload[:80].decode("utf-8", errors="replace")
        raise unreadable(f"{shown!r} is not JSON") from error


def chat_chunk(value: Json) -> Chunk:
    """Read one event of a streamed chat completion."""
    return _chunk(value, lambda choice, where: _message(choice, where, key="delta"))


def chat_response(value: Json) -> Chunk:
    """Read a whole chat completion."""
    return _chunk(value, lambda choice, where: _message(choice, where, key="message"))


def completion_chunk(value: Json) -> Chunk:
    """Read one event of a streamed text completion."""
    return _chunk(value, _completion)


def completion_response(value: Json) -> Chunk:
    """Read a whole text completion; it has the form of its events."""
    return _chunk(value, _completion)


def error_message(value: Json) -> str | None:
    """The server's words, where a JSON value is an error in one of the forms that servers use."""
    if not isinstance(value, dict):
        return None
    found = value.get("error")
    if found is None and value.get("object") == "error":
        found = value
    if found is None and "choices" not in value:
        found = value.get("detail") or value.get("message")
    if isinstance(found, dict):
        found = found.get("message") or found
    if not found:
        return None
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def aligned(tokens: Sequence[Token], text: str, *, finish: str | None) -> tuple[Token, ...]:
    """The entries with texts that join to exactly `text`, without an entry of the end-of-sequence token.

    Servers take out what the entries still show (the tags of a thought, the end of a turn) and hold back bytes that
    are no character yet, so that the texts of entries need not join to the text.
    """
    out: list[Token] = []
    rest = text
    for number, token in enumerate(tokens, start=1):
        if number == len(tokens):
            if not rest and finish == "stop":
                break
            piece = rest
        else:
            at = rest.find(token.text, 0, _RESYNC + len(token.text)) if token.text else -1
            piece = rest[: at + len(token.text)] if at >= 0 else ""
        rest = rest[len(piece) :]
        out.append(
            token if piece == token.text else Token(text=piece, top_logprobs=token.top_logprobs, logprob=token.logprob)
        )
    return tuple(out)


def logprobs_json(tokens: Sequence[Token]) -> Json:
    """The `logprobs` object of a chat for tokens that have log-probabilities; other tokens' texts are not known."""
    entries: list[Json] = []
    for token in tokens:
        if token.top_logprobs is None:
            continue
        own = token.logprob if token.logprob is not None else token.top_logprobs[0]
        top: list[Json] = [{"token": "", "logprob": _finite(value), "bytes": None} for value in token.top_logprobs]
        entry: dict[str, Json] = {"token": token.text, "logprob": _finite(own), "bytes": list(token.text.encode())}
        entries.append(entry | {"top_logprobs": top})
    return {"content": entries}


def chunk_json(choice: Choice, *, model: str, usage: Usage | None = None) -> Json:
    """One event of a streamed chat completion, which `chat_chunk` reads back."""
    delta: dict[str, Json] = {"content": choice.text}
    if choice.reasoning:
        delta["reasoning_content"] = choice.reasoning
    first: Json = {
        "index": choice.number,
        "delta": delta,
        "logprobs": logprobs_json(choice.tokens) if choice.tokens else None,
        "finish_reason": choice.finish,
    }
    out: dict[str, Json] = {"object": "chat.completion.chunk", "model": model, "choices": [first]}
    if usage is not None:
        out["usage"] = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    return out


def _chunk(value: Json, read: Callable[[dict[str, Json], str], Choice]) -> Chunk:
    if not isinstance(value, dict):
        raise unreadable(f"{_short(value)} is no object")
    error, model = error_message(value), value.get("model")
    choices: tuple[Choice, ...] = ()
    if error is None:
        rows = value.get("choices")
        if not isinstance(rows, list):
            raise unreadable(f"choices is {_short(rows)}, expected a list")
        choices = tuple(read(_object(row, f"choices[{at}]"), f"choices[{at}].") for at, row in enumerate(rows))
    return Chunk(choices, _usage(value.get("usage")), error, model if isinstance(model, str) else None)


def _message(choice: dict[str, Json], where: str, *, key: str) -> Choice:
    said = _object(choice.get(key) or {}, f"{where}{key}")
    reasoning = _text(said, "reasoning_content", where) or _text(said, "reasoning", where)
    return _choice(choice, where, text=_text(said, "content", where), reasoning=reasoning)


def _completion(choice: dict[str, Json], where: str) -> Choice:
    return _choice(choice, where, text=_text(choice, "text", where), reasoning="")


def _choice(choice: dict[str, Json], where: str, *, text: str, reasoning: str) -> Choice:
    number, finish = choice.get("index"), choice.get("finish_reason")
    return Choice(
        number=number if isinstance(number, int) else 0,
        text=text,
        reasoning=reasoning,
        tokens=_tokens(choice.get("logprobs"), f"{where}logprobs"),
        finish=finish if isinstance(finish, str) else None,
    )


def _tokens(value: Json, where: str) -> tuple[Token, ...]:
    if value is None:
        return ()
    logprobs = _object(value, where)
    keys = [key for key in ("reasoning_content", "content") if isinstance(logprobs.get(key), list)]
    if not keys:
        return _parallel(logprobs, where)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return tuple(
        _entry(_object(row, f"{where}.{key}[{at}]"), f"{where}.{key}[{at}].", decoder)
        for key in keys
        for at, row in enumerate(cast("list[Json]", logprobs[key]))
    )


def _entry(row: dict[str, Json], where: str, decoder: codecs.IncrementalDecoder) -> Token:
    """One entry of `content`; its text is that of its bytes, so that a character split over tokens comes whole."""
    text, raw, top = row.get("token"), row.get("bytes"), row.get("top_logprobs")
    if isinstance(raw, list) and raw:
        text = decoder.decode(bytes(item for item in raw if isinstance(item, int) and 0 <= item < 256))
    values: list[float] = []
    if isinstance(top, list):
        values = [_number(_object(item, f"{where}top_logprobs").get("logprob"), f"{where}top_logprobs") for item in top]
    return _token(text if isinstance(text, str) else "", values, row.get("logprob"), f"{where}logprob")


def _parallel(logprobs: dict[str, Json], where: str) -> tuple[Token, ...]:
    """The lists of a text completion; its top log-probabilities are merged by text, so fewer than k is common."""
    texts, owns, tops = (logprobs.get(key) for key in ("tokens", "token_logprobs", "top_logprobs"))
    if not isinstance(texts, list) or not texts:
        return ()
    out: list[Token] = []
    for at, text in enumerate(texts):
        own = owns[at] if isinstance(owns, list) and at < len(owns) else None
        top = tops[at] if isinstance(tops, list) and at < len(tops) else None
        values = (
            [_number(value, f"{where}.top_logprobs[{at}]") for value in top.values()] if isinstance(top, dict) else []
        )
        out.append(_token(text if isinstance(text, str) else "", values, own, f"{where}.token_logprobs[{at}]"))
    return tuple(out)


def _token(text: str, values: list[float], own: Json, where: str) -> Token:
    return Token(
        text=text,
        top_logprobs=tuple(sorted(values, reverse=True)) or None,
        logprob=None if own is None else _number(own, where),
    )


def _usage(value: Json) -> Usage | None:
    if not isinstance(value, dict):
        return None
    prompt, completion = value.get("prompt_tokens"), value.get("completion_tokens")
    return Usage(
        prompt if isinstance(prompt, int) and prompt >= 0 else None,
        completion if isinstance(completion, int) and completion >= 0 else None,
    )


def _object(value: Json, where: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise unreadable(f"{where} is {_short(value)}, expected an object")
    return value


def _text(row: dict[str, Json], key: str, where: str) -> str:
    found = row.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise unreadable(f"{where}{key} is {_short(found)}, expected a text")
    return found


def _number(value: Json, where: str) -> float:
    if value is None:
        return -math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise unreadable(f"{where} is {_short(value)}, expected a number")
    try:
        return float(value)
    except OverflowError as error:
        raise unreadable(f"{where} is {_short(value)}") from error


def _finite(value: float) -> float:
    return value if value > NOTHING else NOTHING


def _constant(name: str) -> float:
    if name != "-Infinity":
        raise ValueError(name)
    return -math.inf


def _short(value: Json) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
