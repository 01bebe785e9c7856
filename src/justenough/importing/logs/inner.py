"""The reply inside a record, whatever server it is from."""

from __future__ import annotations

from dataclasses import replace

from justenough.errors import TraceFormatError
from justenough.importing.members import count, first, items, named, problem_in, temperature_in, unpacked
from justenough.importing.recording import Recording
from justenough.importing.servers import SERVERS, server_of
from justenough.trace import Json


def replies_in(*places: Json) -> list[Recording]:
    """The replies at the first of these places that has any; each place may be a text that holds JSON.

    Raises `TraceFormatError` if none of them has one.
    """
    for place in map(unpacked, places):
        values = items(place) or [place]
        names = [server_of(value) for value in values]
        replies = [
            recording
            for value, name in zip(values, names, strict=True)
            if name is not None and isinstance(value, dict)
            for recording in SERVERS[name].read(value)
        ]
        if any(names):
            return replies
    raise TraceFormatError(
        "the record keeps only the text of the reply, without log-probabilities: log the whole response of the server"
    )


def described(recording: Recording, *, request: Json, identity: str | None, model: str | None) -> Recording:
    """The reply with the id, the model, the seed, the problem and the temperature that the record adds to it."""
    return replace(
        recording,
        id=identity or recording.id,
        stream=recording.stream and f"{identity} {recording.stream}",
        model=recording.model or model or named(first(request, "model")),
        seed=count(first(request, "seed")) if recording.seed is None else recording.seed,
        problem=recording.problem or problem_in(request),
        temperature=temperature_in(request) if recording.temperature is None else recording.temperature,
    )
