"""OpenAI chat and text completion responses with log-probabilities, also as lines of a Batch-API output file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from justenough.errors import BackendRejected, InputError, TraceFormatError
from justenough.grading import Grader, Problem, open_grader, read_tasks
from justenough.importing.jsonfile import json_values
from justenough.importing.options import ImportOptions
from justenough.importing.replies import at_common_top_k, checked, said, step_of
from justenough.signal.signal import Signal
from justenough.trace import Json, Trace
from justenough.trace.files import BadLine, LoadResult
from justenough.wire import Choice, Chunk, Usage, chat_response, completion_response, error_message

_SIGNAL = Signal(top_k=None)


def read_openai(path: Path, wanted: ImportOptions) -> LoadResult:
    """One trace of one step for each reply; graded where `--tasks` has a target for its `custom_id` or id.

    A response with several choices gives one trace each, `ID#0`, `ID#1`, …; the tokens of each are its entries.
    """
    wanted.refuse("openai", takes=("model", "tasks"))
    problems = {problem.id: problem for problem in read_tasks(wanted.tasks)} if wanted.tasks else {}
    grader = open_grader(wanted.grader)
    traces: list[Trace] = []
    bad: list[BadLine] = []
    seen: dict[str, int] = {}
    try:
        for found in json_values(path):
            if isinstance(found, BadLine):
                bad.append(found)
                continue
            try:
                made = _traces(found.value, problems, grader, model=wanted.model)
            except TraceFormatError as error:
                bad.append(BadLine(found.number, error.reason))
                continue
            except BackendRejected as error:
                bad.append(BadLine(found.number, str(error)))
                continue
            if made[0].id in seen:
                bad.append(BadLine(found.number, f"the id {made[0].id!r} stands in line {seen[made[0].id]} already"))
                continue
            seen[made[0].id] = found.number
            traces += made
    finally:
        grader.close()
    if wanted.tasks and traces and not any(trace.target is not None for trace in traces):
        raise InputError(
            f"no reply's id is one of the {len(problems)} of {wanted.tasks}: {traces[0].id!r} is not",
            hint="give each request its task's id as custom_id",
        )
    return LoadResult(at_common_top_k(traces), bad)


def _traces(value: Json, problems: Mapping[str, Problem], grader: Grader, *, model: str | None) -> list[Trace]:
    identity, body = _body(value)
    chunk = _read(body)
    if chunk.error is not None:
        raise TraceFormatError(f"the server answered with an error: {chunk.error}")
    if not chunk.choices:
        raise TraceFormatError("the response has no choice")
    name = model or chunk.model
    if not name:
        raise TraceFormatError("the response names no model", hint="give --model")
    problem = problems.get(identity)
    several = len(chunk.choices) > 1
    return [
        _trace(
            choice,
            chunk if not several else chunk._replace(usage=_prompt_only(chunk)),
            identity=f"{identity}#{choice.number}" if several else identity,
            model=name,
            problem=problem,
            grader=grader,
        )
        for choice in chunk.choices
    ]


def _body(value: Json) -> tuple[str, dict[str, Json]]:
    """What names the reply, and the response itself, out of a Batch line's envelope."""
    if not isinstance(value, dict):
        raise TraceFormatError("is no JSON object")
    body = value
    identity = value.get("custom_id")
    if identity is not None or ("response" in value and "choices" not in value):
        response = value.get("response")
        status = response.get("status_code") if isinstance(response, dict) else None
        inner = response.get("body") if isinstance(response, dict) else None
        if not isinstance(inner, dict) or value.get("error"):
            raise TraceFormatError(f"the request failed: {error_message(value) or 'there is no response'}")
        body = inner
        if status is not None and status != 200:
            raise TraceFormatError(f"the request failed with status {status}: {error_message(body) or 'no message'}")
    if identity is None:
        identity = body.get("id")
    if not isinstance(identity, str | int) or isinstance(identity, bool) or identity == "":
        raise TraceFormatError("has neither custom_id nor id")
    return str(identity), body


def _read(body: dict[str, Json]) -> Chunk:
    if body.get("object") in ("chat.completion.chunk", "response"):
        raise TraceFormatError(f"a {body['object']} is no whole completion")
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return completion_response(body) if isinstance(first, dict) and "text" in first else chat_response(body)


def _prompt_only(chunk: Chunk) -> Usage | None:
    return None if chunk.usage is None else chunk.usage._replace(completion_tokens=None)


def _trace(
    choice: Choice, chunk: Chunk, *, identity: str, model: str, problem: Problem | None, grader: Grader
) -> Trace:
    answer = grader.extract(said(choice))
    target = problem.target if problem is not None else None
    correct = grader.grade(answer, target) if answer is not None and target is not None else None
    return checked(
        Trace(
            id=identity,
            model=model,
            task=problem.task if problem is not None else "",
            family=problem.family if problem is not None else None,
            group=problem.group if problem is not None else None,
            problem=problem.problem if problem is not None else None,
            target=target,
            signal=_SIGNAL,
            steps=(step_of(choice, chunk.usage, answer=answer, correct=correct),),
        )
    )
