"""Logs of Inspect AI, as JSON or in its own format: each call of the evaluated model is a step.

The sample's score grades the last step. Earlier steps have no score of their own and are graded with `--grader`. Calls
by scorers, calls of other models and failed calls are not steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple, cast

from justenough.errors import InputError, TraceFormatError
from justenough.grading import Grader, open_grader
from justenough.grading.graders import is_right
from justenough.importing.evalzip import archived, is_archive
from justenough.importing.jsonfile import Item, json_values, object_with_list
from justenough.importing.members import inside, number, objects, temperature_in, text
from justenough.importing.options import ImportOptions
from justenough.importing.replies import (
    Numbered,
    at_common_top_k,
    calls_tool,
    checked,
    lacking,
    reply_of,
    step_of,
    text_of,
)
from justenough.importing.splitting import split
from justenough.signal.signal import Signal
from justenough.trace import Json, Step, Trace
from justenough.trace.files import BadLine
from justenough.wire.chunks import Choice, Usage

_FINISH: Final = {"max_tokens": "length", "model_length": "length"}
_REFERENCES: Final = ("attachment://", "tc://")


class _Score(NamedTuple):
    correct: bool | None
    """None if the scorer says that there is no answer."""
    answer: str | None


class _Log(NamedTuple):
    model: str
    task: str
    temperature: float | None
    samples: list[Json]


def looks_like_log(value: dict[str, Json]) -> bool:
    """Whether this is a whole log."""
    return isinstance(value.get("eval"), dict) and "samples" in value


def is_one_log(path: Path) -> bool:
    """Whether a JSON file is one whole log; reads only up to its first sample where the header comes first."""
    parts = _streamed(path)
    return parts is not None and isinstance(parts[0].get("eval"), dict)


def read_inspect(path: Path, options: ImportOptions) -> Iterator[Numbered | BadLine]:
    """One trace for each sample; bad samples are numbered by their place in the log."""
    options.refuse("inspect", takes=("split",))
    with closing(open_grader(options.grader)) as grader:
        yield from at_common_top_k(lambda: _samples(path, grader, options.split), options)


def _samples(path: Path, grader: Grader, splitting: str | None) -> Iterator[Numbered | BadLine]:
    parts = archived(path) if is_archive(path) else _streamed(path)
    if parts is not None:
        header, samples = parts
        log = _log(header | {"samples": []}, path)
        yield from (_sample(item, log, grader, splitting) for item in samples)
        return
    for item in json_values(path):
        if isinstance(item, BadLine):
            yield item
            continue
        log = _log(item.value, path)
        yield from (_sample(Item(at, sample), log, grader, splitting) for at, sample in enumerate(log.samples, 1))


def _streamed(path: Path) -> tuple[dict[str, Json], Iterator[Item | BadLine]] | None:
    return object_with_list(path, "samples", needed=("eval", "plan"))


def _sample(item: Item | BadLine, log: _Log, grader: Grader, splitting: str | None) -> Numbered | BadLine:
    if isinstance(item, BadLine):
        return item
    try:
        return Numbered(item.number, _trace(_object(item.value, "the sample"), log, grader, splitting))
    except TraceFormatError as error:
        return BadLine(item.number, error.reason)


def _log(value: Json, path: Path) -> _Log:
    header = value.get("eval") if isinstance(value, dict) else None
    samples = value.get("samples") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(header, dict) or not isinstance(samples, list):
        raise InputError(f"{path} is not an Inspect log with samples", hint="inspect log dump FILE > FILE.json")
    temperature = temperature_in(header.get("model_generate_config"))
    if temperature is None:
        temperature = temperature_in(value.get("plan"))
    return _Log(str(header.get("model") or ""), str(header.get("task") or ""), temperature, samples)


def _trace(sample: dict[str, Json], log: _Log, grader: Grader, splitting: str | None) -> Trace:
    if sample.get("error"):
        error = sample["error"]
        message = error.get("message") if isinstance(error, dict) else error
        raise TraceFormatError(f"the sample ended with an error: {str(message)[:200]}")
    identity, epoch = sample.get("id"), sample.get("epoch")
    if not isinstance(identity, str | int) or isinstance(identity, bool) or identity == "":
        raise TraceFormatError("the sample has no id")
    target = sample.get("target")
    targets = [str(each).strip() for each in (target if isinstance(target, list) else [target]) if each]
    score = _score(sample.get("scores"))
    events = _events(sample)
    calls = list(_calls(events, log.model)) if events else [sample]
    steps = list(_steps(calls, sample, targets, grader))
    if not steps:
        raise TraceFormatError(f"the sample has no answered call of {log.model}")
    if all(lack := [lacking(step) for step in steps]):
        raise TraceFormatError(f"the sample {lack[-1]}: run Inspect with --logprobs --top-logprobs 20")
    stated = (value for call in calls if (value := temperature_in(call)) is not None)
    temperature = next(stated, log.temperature)
    answer = score.answer or steps[-1].answer
    if score.correct is None:
        # The scorer says that there is no answer.
        answer = None
    steps[-1] = replace(steps[-1], answer=answer, correct=score.correct)
    trace = Trace(
        id=str(identity),
        model=log.model,
        task=log.task,
        seed=epoch if isinstance(epoch, int) else None,
        problem=_problem(sample),
        target=targets[0] if len(targets) == 1 else None,
        signal=Signal(top_k=None, temperature=temperature),
        steps=tuple(steps),
        extra=_gateway_report(sample.get("metadata")),
    )
    if splitting is not None:
        if len(steps) > 1:
            raise TraceFormatError(f"the sample has {len(steps)} calls of {log.model}: only one thought can be split")
        trace = split(trace, splitting, grader=grader, targets=targets)
    return checked(trace)


def _score(scores: Json) -> _Score:
    if not isinstance(scores, dict) or not scores:
        raise TraceFormatError("the sample has no score")
    name, score = next(iter(scores.items()))
    fields = _object(score, f"the score {name}")
    value, answer = fields.get("value"), fields.get("answer")
    text = answer if isinstance(answer, str) and answer.strip() else None
    if isinstance(value, bool):
        return _Score(value, text)
    if (score_value := number(value)) is not None:
        return _Score(score_value >= 1, text)
    if isinstance(value, str) and value in ("C", "I", "P", "N"):
        # Partly correct is not correct.
        return _Score(None if value == "N" else value == "C", text)
    raise TraceFormatError(f"the score {name} is {str(value)[:80]!r}, which is neither right nor wrong")


def _steps(calls: list[dict[str, Json]], sample: dict[str, Json], targets: list[str], grader: Grader) -> Iterator[Step]:
    for event in calls:
        output = _object(event.get("output"), "the model's output")
        if not output.get("choices"):
            continue
        choice, usage = _reply(output, sample)
        # A turn that calls a tool has no answer yet.
        answer = None if calls_tool(choice) else grader.extract(text_of(choice))
        step = step_of(choice, usage, answer=answer, correct=is_right(grader, answer, targets))
        seconds = number(output.get("time"))
        latency = seconds if seconds is not None and seconds >= 0 else None
        # The server's own response is in the log beside the output that Inspect made of it.
        report = _gateway_report(output.get("metadata"), inside(event, "call", "response"))
        yield replace(step, latency_s=latency, extra=report)


def _gateway_report(*places: Json) -> dict[str, Json]:
    """The report of a gateway, from the first of the objects that has one."""
    reports = [place["justenough"] for place in places if isinstance(place, dict) and place.get("justenough")]
    return {"justenough": reports[0]} if reports else {}


def _events(sample: dict[str, Json]) -> list[dict[str, Json]]:
    return objects(sample.get("events") or inside(sample, "transcript", "events"))


def _calls(events: list[dict[str, Json]], model: str) -> Iterator[dict[str, Json]]:
    """The calls of the evaluated model before scoring begins."""
    for event in events:
        if event.get("type") == "scorer" or (event.get("event") == "span_begin" and event.get("name") == "scorers"):
            return
        if event.get("event") != "model" or event.get("error") or event.get("pending"):
            continue
        name = str(event.get("model") or "")
        if name == model or model.endswith(f"/{name}"):
            yield event


def _reply(output: dict[str, Json], sample: dict[str, Json]) -> tuple[Choice, Usage | None]:
    """The first choice in OpenAI's form, and the usage.

    Inspect keeps OpenAI's log-probabilities as they are.
    """
    choices = output.get("choices")
    choice = _object(choices[0] if isinstance(choices, list) else choices, "the model's choice")
    message = _object(choice.get("message"), "the model's message")
    text, reasoning = _content(message.get("content"), sample)
    finish, usage = choice.get("stop_reason"), output.get("usage")
    plain: dict[str, Json] = {
        "choices": [
            {
                "message": {"content": text, "reasoning_content": reasoning, "tool_calls": message.get("tool_calls")},
                "logprobs": choice.get("logprobs"),
                "finish_reason": _FINISH.get(finish, finish) if isinstance(finish, str) else None,
            }
        ]
    }
    if isinstance(usage, dict):
        plain["usage"] = {"prompt_tokens": usage.get("input_tokens"), "completion_tokens": usage.get("output_tokens")}
    reply = reply_of(plain)
    return cast("list[Choice]", reply.choices)[0], reply.usage


def _content(content: Json, sample: dict[str, Json]) -> tuple[str, str]:
    """Text and reasoning of a message, whose content is one text or a list of typed parts."""
    if isinstance(content, str):
        return _resolved(content, sample), ""
    words, thought = (
        "".join(_resolved(text(part.get(kind)), sample) for part in objects(content) if part.get("type") == kind)
        for kind in ("text", "reasoning")
    )
    return words, thought


def _resolved(text: str, sample: dict[str, Json]) -> str:
    """The text itself, or the one that it refers to: the log keeps long or frequent texts in a separate place."""
    reference = next((mark for mark in _REFERENCES if text.startswith(mark)), None)
    if reference is None:
        return text
    places = [sample.get("attachments"), inside(sample, "transcript", "content")]
    key = text.removeprefix(reference)
    full = next((place[key] for place in places if isinstance(place, dict) and key in place), None)
    if not isinstance(full, str):
        raise TraceFormatError(f"the log lacks the text {text}")
    return full


def _problem(sample: dict[str, Json]) -> str | None:
    problem = sample.get("input")
    if isinstance(problem, list):
        turns = [turn for turn in objects(problem) if turn.get("role") == "user"]
        problem = _content(turns[-1].get("content"), sample)[0] if turns else None
    return _resolved(problem, sample) if isinstance(problem, str) else None


def _object(value: Json, what: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise TraceFormatError(f"{what} is not an object")
    return value
