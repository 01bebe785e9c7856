"""Offline results of vLLM: `RequestOutput` objects, written as JSON with the names of their attributes.

Source: vllm, `vllm/outputs.py` (`RequestOutput`, `CompletionOutput`), `vllm/logprobs.py` (`Logprob`, `FlatLogprobs`).
"""

from __future__ import annotations

from justenough.importing.members import count, inside, items, named, objects, text
from justenough.importing.recording import Recording, choice, entry, usage
from justenough.trace import Json


def looks_like(value: dict[str, Json]) -> bool:
    """Whether this is the output of one request."""
    outputs = objects(value.get("outputs"))
    return bool(outputs) and all("text" in each and "token_ids" in each for each in outputs)


def read(value: dict[str, Json]) -> list[Recording]:
    """The outputs of the request, one choice each."""
    outputs = objects(value.get("outputs"))
    prompt = items(value.get("prompt_token_ids"))
    tokens = len(items(outputs[0].get("token_ids"))) if len(outputs) == 1 else None
    return [
        Recording(
            choices=[
                choice(
                    text(output.get("text")),
                    _entries(output),
                    finish=output.get("finish_reason"),
                    index=at if (index := count(output.get("index"))) is None else index,
                )
                for at, output in enumerate(outputs)
            ],
            usage=usage(len(prompt) or None, tokens or None),
            id=named(value.get("request_id")),
            model=named(value.get("model")),
            problem=text(value.get("prompt")) or None,
            ask="SamplingParams(logprobs=20)",
        )
    ]


def _entries(output: dict[str, Json]) -> list[Json]:
    """The entries of the tokens. vLLM gives the sampled token besides the k most likely ones."""
    logprobs, ids = output.get("logprobs"), items(output.get("token_ids"))
    rows = _flat(logprobs) if isinstance(logprobs, dict) else items(logprobs)
    entries: list[Json] = []
    for at, row in enumerate(rows):
        if not isinstance(row, dict):
            entries.append(entry("", None, ()))
            continue
        own = row.get(str(ids[at])) if at < len(ids) else None
        alternatives = [_logprob(value) for value in row.values()]
        entries.append(entry(inside(own, "decoded_token"), _logprob(own), alternatives))
    return entries


def _logprob(value: Json) -> Json:
    """The log-probability of an alternative, which older versions write as a bare number."""
    return value.get("logprob") if isinstance(value, dict) else value


def _flat(flat: dict[str, Json]) -> list[Json]:
    """The rows of `FlatLogprobs`, which has parallel lists for the alternatives of all tokens."""
    begins, ends = items(flat.get("start_indices")), items(flat.get("end_indices"))
    columns = [items(flat.get(name)) for name in ("token_ids", "logprobs", "decoded_tokens")]
    alternatives: list[tuple[str, Json]] = [
        (str(token), {"logprob": logprob, "decoded_token": decoded})
        for token, logprob, decoded in zip(*columns, strict=False)
    ]
    return [
        dict(alternatives[begin:end]) if isinstance(begin, int) and isinstance(end, int) else None
        for begin, end in zip(begins, ends, strict=False)
    ]
