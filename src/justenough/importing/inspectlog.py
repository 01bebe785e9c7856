"""Logs of Inspect AI in their JSON form: a step is a call of the evaluated model, the sample's score grades the last.

Earlier steps have no score of their own and are graded with `--grader`. Calls by scorers, by other models, and those
that failed are no steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from justenough.errors import BackendRejected, InputError, TraceFormatError
from justenough.grading import Grader, open_grader
from justenough.importing.jsonfile import json_values
from justenough.importing.options import ImportOptions
from justenough.importing.replies import at_common_top_k, checked, said, step_of
from justenough.signal.signal import Signal
from justenough.trace import Json, Step, Trace
from justenough.trace.files import BadLine, LoadResult
from justenough.wire import Chunk, chat_response

_FINISH: Final = {"max_tokens": "length", "model_length": "length"}
_REFERENCES: Final = ("attachment://", "tc://")


class _Score(NamedTuple):
    correct: bool | None
    """None: the scorer found no answer."""
    answer: str | None


class _Log(NamedTuple):
    model: str
    task: str
    temperature: float | None
    samples: list[Json]


def read_inspect(path: Path, wanted: ImportOptions) -> LoadResult:
    """One trace a sample; bad ones are numbered by their place in the log."""
    wanted.refuse("inspect", takes=())
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            raise InputError(f"{path} is a log in Inspect's own .eval form", hint="inspect log dump FILE > FILE.json")
    grader = open_grader(wanted.grader)
    traces: list[Trace] = []
    bad: list[BadLine] = []
    try:
        for found in json_values(path):
            if isinstance(found, BadLine):
                bad.append(found)
                continue
            log = _log(found.value, path)
            for number, sample in enumerate(log.samples, 1):
                try:
                    traces.append(_trace(_object(sample, "the sample"), log, grader))
                except TraceFormatError as error:
                    bad.append(BadLine(number, error.reason))
                except BackendRejected as error:
                    bad.append(BadLine(number, str(error)))
    finally:
        grader.close()
    return LoadResult(at_common_top_k(traces), bad)


def _log(value: Json, path: Path) -> _Log:
    header = value.get("eval") if isinstance(value, dict) else None
    samples = value.get("samples") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(header, dict) or not isinstance(samples, list):
        raise InputError(f"{path} is no log of Inspect with samples", hint="inspect log dump FILE > FILE.json")
    plan = value.get("plan")
    configs = [header.get("model_generate_config"), plan.get("config") if isinstance(plan, dict) else None]
    temperatures = [config.get("temperature") for config in configs if isinstance(config, dict)]
    known = [float(found) for found in temperatures if isinstance(found, int | float)]
    return _Log(str(header.get("model") or ""), str(header.get("task") or ""), known[0] if known else None, samples)


def _trace(sample: dict[str, Json], log: _Log, grader: Grader) -> Trace:
    if sample.get("error"):
        error = sample["error"]
        message = error.get("message") if isinstance(error, dict) else error
        raise TraceFormatError(f"the sample ended with an error: {str(message)[:200]}")
    identity, epoch = sample.get("id"), sample.get("epoch")
    if not isinstance(identity, str | int) or isinstance(identity, bool) or identity == "":
        raise TraceFormatError("the sample has no id")
    given = sample.get("target")
    targets = [str(target).strip() for target in (given if isinstance(given, list) else [given]) if target]
    score = _score(sample.get("scores"))
    steps = list(_steps(sample, log, targets, grader))
    if not steps:
        raise TraceFormatError(f"the sample has no answered call of {log.model}")
    answer = score.answer or steps[-1].answer
    if score.correct is None:
        # The scorer's word for "no answer".
        answer = None
    steps[-1] = replace(steps[-1], answer=answer, correct=score.correct)
    return checked(
        Trace(
            id=str(identity),
            model=log.model,
            task=log.task,
            seed=epoch if isinstance(epoch, int) else None,
            problem=_problem(sample),
            target=targets[0] if len(targets) == 1 else None,
            signal=Signal(top_k=None, temperature=log.temperature),
            steps=tuple(steps),
        )
    )


def _score(scores: Json) -> _Score:
    if not isinstance(scores, dict) or not scores:
        raise TraceFormatError("the sample has no score")
    name, score = next(iter(scores.items()))
    fields = _object(score, f"the score {name}")
    value, answer = fields.get("value"), fields.get("answer")
    text = answer if isinstance(answer, str) and answer.strip() else None
    if isinstance(value, bool):
        return _Score(value, text)
    if isinstance(value, int | float) and math.isfinite(value):
        return _Score(value >= 1, text)
    if isinstance(value, str) and value in ("C", "I", "P", "N"):
        # Partly correct is not correct.
        return _Score(None if value == "N" else value == "C", text)
    raise TraceFormatError(f"the score {name} is {str(value)[:80]!r}, neither right nor wrong")


def _steps(sample: dict[str, Json], log: _Log, targets: list[str], grader: Grader) -> Iterator[Step]:
    events = _events(sample)
    outputs = [event.get("output") for event in _calls(events, log.model)] if events else [sample.get("output")]
    for value in outputs:
        output = _object(value, "the model's output")
        if not output.get("choices"):
            continue
        reply, calls_tool = _reply(output, sample)
        # A turn that calls a tool is no answer yet.
        answer = None if calls_tool else grader.extract(said(reply.choices[0]))
        correct = any(grader.grade(answer, target) for target in targets) if answer is not None and targets else None
        step = step_of(reply.choices[0], reply.usage, answer=answer, correct=correct)
        took = output.get("time")
        yield replace(step, latency_s=float(took)) if isinstance(took, int | float) and took >= 0 else step


def _events(sample: dict[str, Json]) -> list[dict[str, Json]]:
    events = sample.get("events")
    older = sample.get("transcript")
    if not events and isinstance(older, dict):
        events = older.get("events")
    return [event for event in events if isinstance(event, dict)] if isinstance(events, list) else []


def _calls(events: list[dict[str, Json]], model: str) -> Iterator[dict[str, Json]]:
    """Calls of the evaluated model before scoring begins."""
    for event in events:
        if event.get("type") == "scorer" or (event.get("event") == "span_begin" and event.get("name") == "scorers"):
            return
        if event.get("event") != "model" or event.get("error") or event.get("pending"):
            continue
        name = str(event.get("model") or "")
        if name == model or model.endswith(f"/{name}"):
            yield event


def _reply(output: dict[str, Json], sample: dict[str, Json]) -> tuple[Chunk, bool]:
    """The first choice in OpenAI's form, whose log-probabilities Inspect keeps as they are, and whether it calls a
    tool."""
    choices = output.get("choices")
    choice = _object(choices[0] if isinstance(choices, list) else choices, "the model's choice")
    message = _object(choice.get("message"), "the model's message")
    text, reasoning = _content(message.get("content"), sample)
    finish, usage = choice.get("stop_reason"), output.get("usage")
    plain: dict[str, Json] = {
        "choices": [
            {
                "message": {"content": text, "reasoning_content": reasoning},
                "logprobs": choice.get("logprobs"),
                "finish_reason": _FINISH.get(finish, finish) if isinstance(finish, str) else None,
            }
        ]
    }
    if isinstance(usage, dict):
        plain["usage"] = {
            "prompt_tokens": usage.get("input_tokens"),
            "completion_tokens": usage.get("output_tokens"),
        }
    return chat_response(plain), bool(message.get("tool_calls"))


def _content(content: Json, sample: dict[str, Json]) -> tuple[str, str]:
    """Text and reasoning of a message: one text, or parts by type."""
    if isinstance(content, str):
        return _resolved(content, sample), ""
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    texts = [_resolved(str(part.get("text") or ""), sample) for part in parts if part.get("type") == "text"]
    thoughts = [
        _resolved(str(part.get("reasoning") or ""), sample) for part in parts if part.get("type") == "reasoning"
    ]
    return "".join(texts), "".join(thoughts)


def _resolved(text: str, sample: dict[str, Json]) -> str:
    """A text that the log holds apart, because it is long or comes often, under a reference."""
    reference = next((mark for mark in _REFERENCES if text.startswith(mark)), None)
    if reference is None:
        return text
    older = sample.get("transcript")
    apart = [sample.get("attachments"), older.get("content") if isinstance(older, dict) else None]
    key = text.removeprefix(reference)
    found = next((held[key] for held in apart if isinstance(held, dict) and key in held), None)
    if not isinstance(found, str):
        raise TraceFormatError(f"the log lacks the text {text}")
    return found


def _problem(sample: dict[str, Json]) -> str | None:
    given = sample.get("input")
    if isinstance(given, list):
        asked = [part for part in given if isinstance(part, dict) and part.get("role") == "user"]
        given = _content(asked[-1].get("content"), sample)[0] if asked else None
    return _resolved(given, sample) if isinstance(given, str) else None


def _object(value: Json, what: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise TraceFormatError(f"{what} is no object")
    return value
