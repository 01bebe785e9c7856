"""From the records of a file to graded traces of one step each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

from justenough.errors import InputError, TraceFormatError
from justenough.grading import Grader, Problem, open_grader, read_tasks
from justenough.grading.graders import is_right
from justenough.importing.members import items
from justenough.importing.options import ImportOptions
from justenough.importing.recording import Recording
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
from justenough.importing.servers import Form
from justenough.importing.splitting import split
from justenough.importing.streams import Streams, Whole, values_of
from justenough.signal.signal import Signal
from justenough.trace import Json, Trace
from justenough.trace.files import BadLine
from justenough.wire.chunks import Choice, Usage, error_message, is_empty
from justenough.wire.events import DONE

_SIGNAL: Final = Signal(top_k=None)


def read_recordings(path: Path, options: ImportOptions, form: Form) -> Iterator[Numbered | BadLine]:
    """One trace of one step for each reply; it is graded if `--tasks` has a target for its id or its problem.

    The choices of one reply are runs of one problem.
    """
    problems = read_tasks(options.tasks) if options.tasks else []
    with closing(open_grader(options.grader)) as grader:
        reader = _Reader(path, options, form, problems, grader)
        yield from at_common_top_k(reader.traces, options)


class _Reader:
    """Reads a file with one form of records."""

    def __init__(self, path: Path, options: ImportOptions, form: Form, problems: list[Problem], grader: Grader) -> None:
        self._path, self._options, self._form, self._grader = path, options, form, grader
        self._problems = {problem.problem.strip(): problem for problem in problems}
        self._problems |= {problem.id: problem for problem in problems}

    def traces(self) -> Iterator[Numbered | BadLine]:
        """The traces in the order of the file; a streamed reply has the line of its first piece."""
        first_id: str | None = None
        graded = False
        for whole in self._wholes():
            if isinstance(whole, BadLine):
                yield whole
                continue
            try:
                built = self._built(whole)
            except TraceFormatError as error:
                yield BadLine(whole.line, error.reason)
                continue
            first_id = first_id or built[0].id
            graded = graded or any(trace.target is not None for trace in built)
            yield from (Numbered(whole.line, trace) for trace in built)
        if self._problems and first_id and not graded:
            raise InputError(
                f"no reply has an id or a problem of the tasks in {self._options.tasks}; the first id is {first_id!r}",
                hint="give each request the id of its task as custom_id",
            )

    def _wholes(self) -> Iterator[Whole | BadLine]:
        streams = Streams()
        for item in values_of(self._path):
            if isinstance(item, BadLine):
                yield item
            elif item.value == DONE:
                yield from streams.end()
            else:
                try:
                    recordings = self._recordings(item.value)
                except TraceFormatError as error:
                    yield BadLine(item.number, error.reason)
                    continue
                for recording in recordings:
                    yield from streams.add(item.number, recording)
        yield from streams.end()

    def _recordings(self, value: Json) -> list[Recording]:
        """The replies in one value, which may be a list of them."""
        if isinstance(value, list):
            return [recording for each in items(value) for recording in self._recordings(each)]
        if not isinstance(value, dict):
            raise TraceFormatError("is not a JSON object")
        if self._form.looks_like(value):
            return self._form.read(value)
        if (words := error_message(value)) is not None:
            raise TraceFormatError(f"the server answered with an error: {words}")
        raise TraceFormatError(f"is not of this format: its keys are {', '.join(list(value)[:8]) or 'none'}")

    def _built(self, whole: Whole) -> list[Trace]:
        """The traces of a reply, one for each choice."""
        recording = whole.recording
        if whole.broken:
            raise TraceFormatError("the stream breaks off: none of its pieces has a finish_reason")
        reply = reply_of({"choices": recording.choices, "usage": recording.usage})
        choices, usage = reply.choices or [], reply.usage
        if not choices:
            raise TraceFormatError("the response has no choices")
        several = len(choices) > 1
        if usage is not None and several:
            # The completion tokens are those of all choices together.
            usage = Usage(prompt_tokens=usage.prompt_tokens)
        return [self._trace(whole, choice, usage, at=at if several else None) for at, choice in enumerate(choices)]

    def _trace(self, whole: Whole, choice: Choice, usage: Usage | None, *, at: int | None) -> Trace:
        recording = whole.recording
        model = recording.model or self._options.chosen
        if not model:
            raise TraceFormatError("the response names no model: give --model NAME")
        identity = recording.id or f"line-{whole.line}"
        problem = self._problems.get(identity) or self._problems.get((recording.problem or "").strip())
        answer = self._grader.extract(text_of(choice))
        targets = problem.targets if problem is not None else ()
        correct = is_right(self._grader, answer, targets)
        lack = "has no log-probabilities" if is_empty(choice.logprobs) else None
        if lack is None:
            step = step_of(choice, usage, answer=answer, correct=correct, extra=recording.extra)
            lack = lacking(step)
        if lack is not None:
            calls = calls_tool(choice) and not choice.content
            raise TraceFormatError(f"the reply {'calls a tool and ' * calls}{lack}: request {recording.ask}")
        trace = Trace(
            id=identity,
            model=model,
            problem=recording.problem,
            seed=recording.seed if at is None else (recording.seed or 0) + (choice.index or at),
            signal=replace(_SIGNAL, temperature=recording.temperature),
            steps=(step,),
        )
        if problem is not None:
            trace = replace(
                trace,
                id=problem.id,
                task=problem.task,
                family=problem.family,
                group=problem.group,
                problem=problem.problem,
                target=problem.target,
            )
        if self._options.split is not None:
            trace = split(trace, self._options.split, grader=self._grader, targets=targets)
        return checked(trace)
