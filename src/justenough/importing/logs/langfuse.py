"""Generations that Langfuse exports: observations from its page or its API, also inside whole traces.

Source: langfuse, `fern/apis/server/definition/commons.yml` (`Observation`: `type`, `traceId`, `model`,
`modelParameters`, `input`, `output`, `metadata`). Its integration for OpenAI keeps only the message, so the application
must put the whole response into `output` or `metadata`.
"""

from __future__ import annotations

from justenough.importing.logs.inner import described, replies_in
from justenough.importing.members import first, named, objects, text, unpacked
from justenough.importing.recording import Recording
from justenough.trace import Json


def looks_like(value: dict[str, Json]) -> bool:
    """Whether this is an observation, or a trace with its observations."""
    observation = next(iter(objects(value.get("observations"))), value)
    # GENERATION, SPAN, EVENT, TOOL, …
    return text(observation.get("type")).isupper() and first(observation, "traceId", "trace_id") is not None


def read(value: dict[str, Json]) -> list[Recording]:
    """The reply of each generation; other observations have none."""
    if observations := objects(value.get("observations")):
        return [recording for each in observations for recording in read(each)]
    if value.get("type") != "GENERATION":
        return []
    prompt, parameters = unpacked(value.get("input")), unpacked(first(value, "modelParameters", "model_parameters"))
    request: dict[str, Json] = dict(parameters) if isinstance(parameters, dict) else {}
    request |= prompt if isinstance(prompt, dict) else {"messages": prompt}
    metadata = unpacked(value.get("metadata"))
    inner = list(metadata.values()) if isinstance(metadata, dict) else []
    model = named(first(value, "model", "providedModelName", "provided_model_name"))
    return [
        described(each, request=request, identity=named(value.get("id")), model=model)
        for each in replies_in(value.get("output"), metadata, *inner)
    ]
