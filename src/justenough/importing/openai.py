"""OpenAI's chat and text completions with log-probabilities, also as lines of a Batch API output file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from justenough.errors import InputError, TraceFormatError
from justenough.grading import Grader, Problem, open_grader, read_tasks
from justenough.grading.graders import is_right
from justenough.importing.jsonfile import json_values
from justenough.importing.options import ImportOptions
from justenough.importing.replies import at_common_top_k, checked, reply_of, step_of, text_of
from justenough.signal.signal import Signal
from justenough.trace import Json, Trace
from justenough.trace.files import BadLine
from justenough.wire.chunks import Choice, Usage, error_message

_SIGNAL = Signal(top_k=None)
_ABOUT = ("task", "family", "group", "problem", "target")


def read_openai(path: Path, options: ImportOptions) -> Iterator[Trace | BadLine]:
    """One trace of one step for each reply; it is graded if `--tasks` has a target for its `custom_id` or id.

    A response with several choices gives one trace for each (`ID#0`, `ID#1`, …); its tokens are counted by its entries.
    """
    options.refuse("openai", takes=("model", "tasks"))
    problems = {problem.id: problem for problem in read_tasks(options.tasks)} if options.tasks else {}
    with closing(open_grader(options.grader)) as grader:
        yield from at_common_top_k(lambda: _replies(path, options, problems, grader))


def _replies(
    path: Path, options: ImportOptions, problems: Mapping[str, Problem], grader: Grader
) -> Iterator[Trace | BadLine]:
    lines: dict[str, int] = {}
    graded = False
    for item in json_values(path):
        if isinstance(item, BadLine):
            yield item
            continue
        try:
            replies = _traces(item.value, problems, grader, model=options.model)
        except TraceFormatError as error:
            yield BadLine(item.number, error.reason)
            continue
        first = replies[0].id
        if first in lines:
            yield BadLine(item.number, f"the id {first!r} is also in line {lines[first]}")
            continue
        lines[first] = item.number
        graded = graded or any(trace.target is not None for trace in replies)
        yield from replies
    if options.tasks and lines and not graded:
        first = next(iter(lines))
        raise InputError(
            f"no reply has an id of the {len(problems)} tasks in {options.tasks}; the first id is {first!r}",
            hint="give each request the id of its task as custom_id",
        )


def _traces(value: Json, problems: Mapping[str, Problem], grader: Grader, *, model: str | None) -> list[Trace]:
    identity, body = _body(value)
    if body.get("object") in ("chat.completion.chunk", "response"):
        raise TraceFormatError(f"a {body['object']} is no whole completion")
    reply = reply_of(body)
    if (words := error_message(body)) is not None:
        raise TraceFormatError(f"the server answered with an error: {words}")
    if not reply.choices:
        raise TraceFormatError("the response has no choices")
    name = model or body.get("model")
    if not isinstance(name, str) or not name:
        raise TraceFormatError("the response names no model", hint="give --model")
    problem = problems.get(identity)
    several = len(reply.choices) > 1
    usage = reply.usage
    if usage is not None and several:
        # The completion tokens are those of all choices together.
        usage = Usage(prompt_tokens=usage.prompt_tokens)
    names = [f"{identity}#{choice.index or 0}" if several else identity for choice in reply.choices]
    return [
        _trace(choice, usage, identity=each, model=name, problem=problem, grader=grader)
        for each, choice in zip(names, reply.choices, strict=True)
    ]


def _body(value: Json) -> tuple[str, dict[str, Json]]:
    """The reply's id, and the response itself, also from the envelope of a Batch line."""
    if not isinstance(value, dict):
        raise TraceFormatError("is not a JSON object")
    body = value
    identity = value.get("custom_id")
    if identity is not None or ("response" in value and "choices" not in value):
        response = value.get("response")
        status = response.get("status_code") if isinstance(response, dict) else None
        inner = response.get("body") if isinstance(response, dict) else None
        if not isinstance(inner, dict) or value.get("error"):
            raise TraceFormatError(f"the request failed: {error_message(value) or 'it has no response'}")
        body = inner
        if status is not None and status != 200:
            raise TraceFormatError(f"the request failed with status {status}: {error_message(body) or 'no message'}")
    if identity is None:
        identity = body.get("id")
    if not isinstance(identity, str | int) or isinstance(identity, bool) or identity == "":
        raise TraceFormatError("has neither custom_id nor id")
    return str(identity), body


def _trace(
    choice: Choice, usage: Usage | None, *, identity: str, model: str, problem: Problem | None, grader: Grader
) -> Trace:
    answer = grader.extract(text_of(choice))
    correct = is_right(grader, answer, problem.targets if problem is not None else ())
    step = step_of(choice, usage, answer=answer, correct=correct)
    about = {name: getattr(problem, name) for name in _ABOUT} if problem is not None else {}
    return checked(Trace(id=identity, model=model, signal=_SIGNAL, steps=(step,), **about))
