"""From an OpenAI-style reply with log-probabilities to a step, and the top k that all replies of a file share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from justenough.errors import BackendRejected, TraceFormatError
from justenough.importing.options import ImportOptions
from justenough.signal.signal import MIN_COVERAGE
from justenough.signal.thought import THINK
from justenough.trace import Json, Step, Token, Trace, trace_from_json, trace_to_json
from justenough.trace.files import BadLine
from justenough.trace.types import NOTHING
from justenough.wire.chunks import Choice, Chunk, Usage, is_empty
from justenough.wire.lenient import read_strictly
from justenough.wire.logprobs import aligned, tokens_of

MERGED: Final = "merged_rows"
"""Key in a step's extra: tokens that came with fewer log-probabilities than the others."""


def reply_of(value: Json) -> Chunk:
    """A JSON value as a reply; raises `TraceFormatError` if it cannot be read."""
    try:
        return read_strictly(json.dumps(value))
    except BackendRejected as error:
        raise TraceFormatError(str(error)) from error


def text_of(choice: Choice) -> str:
    """The whole text; reasoning from a separate field is put between its tags."""
    return f"{THINK.open}{choice.reasoning}{THINK.close}{choice.content}" if choice.reasoning else choice.content


class Numbered(NamedTuple):
    """A trace with the number of its line or element."""

    line: int
    trace: Trace


def step_of(
    choice: Choice,
    usage: Usage | None,
    *,
    answer: str | None,
    correct: bool | None,
    extra: Mapping[str, Json] = NOTHING,
) -> Step:
    """One reply as a step; `top_logprobs` has one row for each entry, an empty row for an entry without alternatives.

    Raises `TraceFormatError` if the log-probabilities cannot be read or are those of another text, or the number of
    tokens is unknown.
    """
    text = text_of(choice)
    tokens = _tokens(choice, text)
    counted = usage.completion_tokens if usage is not None else None
    if counted is None and not tokens and text:
        raise TraceFormatError("has neither usage nor log-probabilities: its tokens cannot be counted")
    texts = tuple(token.text for token in tokens)
    own = [token.logprob for token in tokens if token.logprob is not None]
    return Step(
        text=text,
        answer=answer,
        correct=correct,
        tokens=len(tokens) if counted is None else counted,
        finish=choice.finish_reason,
        prompt_tokens=usage.prompt_tokens if usage is not None else None,
        top_logprobs=tuple(token.top_logprobs or () for token in tokens) if tokens else None,
        logprobs=tuple(own) if own and len(own) == len(tokens) else None,
        token_texts=texts if texts and "".join(texts) == text else None,
        extra=extra,
    )


def calls_tool(choice: Choice) -> bool:
    """Whether the reply calls a tool; its log-probabilities are then not only those of its text."""
    return choice.message is not None and not is_empty(choice.message.tool_calls)


def _tokens(choice: Choice, text: str) -> tuple[Token, ...]:
    """The entries of the reply, aligned to its text, or to its text after the thought: some servers give no others."""
    try:
        entries = tokens_of(choice.logprobs)
    except BackendRejected as error:
        raise TraceFormatError(str(error)) from error
    for part in (text, choice.content):
        tokens = aligned(entries, part, finish=choice.finish_reason)
        # As in the gateway, half of the entries may differ from the text.
        occur = sum(entry.text in token.text for entry, token in zip(entries, tokens, strict=False))
        if 2 * occur >= len(tokens) or not text or calls_tool(choice):
            return tokens
    raise TraceFormatError("the tokens of its log-probabilities are not those of its text")


def lacking(step: Step) -> str | None:
    """Why a step has no signal, as the end of a sentence; None if it has one."""
    widest = max((len(row) for row in step.top_logprobs or ()), default=0)
    if widest >= 2:
        return None if _width(step) >= 2 else "has two or more log-probabilities for too few of its tokens"
    if widest or step.logprobs:
        return "has log-probabilities of the chosen tokens only"
    return "has no log-probabilities"


def checked(trace: Trace) -> Trace:
    """The trace as it will be read from a file; raises `TraceFormatError` if the exchange format cannot hold it."""
    rows = [step.top_logprobs for step in trace.steps]
    bare = replace(trace, steps=tuple(replace(step, top_logprobs=_filled(step)) for step in trace.steps))
    read = trace_from_json(trace_to_json(bare))
    return replace(
        read, steps=tuple(replace(step, top_logprobs=row) for step, row in zip(read.steps, rows, strict=True))
    )


def _filled(step: Step) -> tuple[Sequence[float], ...] | None:
    return None if step.top_logprobs is None else tuple(row for row in step.top_logprobs if row) or None


def _width(step: Step) -> int:
    rows = step.top_logprobs
    if not rows:
        return 0
    falling = sorted((len(row) for row in rows), reverse=True)
    return falling[math.ceil(MIN_COVERAGE * len(falling)) - 1]


def at_common_top_k(
    read: Callable[[], Iterable[Numbered | BadLine]], options: ImportOptions
) -> Iterator[Numbered | BadLine]:
    """The traces with their common k in the signal; rows with fewer entries are dropped, which lowers coverage.

    The common k of a model is the largest one that 95 % of the tokens of every measured step have: a server may send
    one entry more (the sampled token) or fewer (entries with the same text are merged), and bits are comparable only if
    all steps have the same k. A trace whose signal states its k keeps it. The file is read twice, so that no trace
    stays in memory. If all traces are of one model, it gets the name in the options.
    """
    narrowest: dict[str, tuple[int, int]] = {}
    widest: dict[str, int] = {}
    models: set[str] = set()
    for item in read():
        if isinstance(item, Numbered):
            name = item.trace.model
            models.add(name)
            if item.trace.signal.top_k is None:
                for width in filter(lambda width: width >= 2, map(_width, item.trace.steps)):
                    narrowest[name] = min(narrowest.get(name, (width, item.line)), (width, item.line))
                    widest[name] = max(widest.get(name, 0), width)
    for name, (width, line) in narrowest.items():
        if width < widest[name] and (len(models) == 1 or options.chosen in (None, name)):
            options.note(
                f"top_k is {width} for all replies of {name}: line {line} has no more, others have up to {widest[name]}"
            )
    for item in read():
        if isinstance(item, Numbered):
            trace, top_k = item.trace, narrowest.get(item.trace.model, (None, 0))[0]
            if trace.signal.top_k is None:
                steps = tuple(narrowed(step, top_k) for step in trace.steps)
                trace = replace(trace, signal=replace(trace.signal, top_k=top_k), steps=steps)
            if options.chosen is not None and len(models) == 1:
                trace = replace(trace, model=options.chosen)
            item = Numbered(item.line, trace)
        yield item


def narrowed(step: Step, top_k: int | None) -> Step:
    """The step without rows of fewer than k entries; `MERGED` counts the rows among them that were not empty.

    A server that names entries by their decoded text merges entries with the same text.
    """
    rows = step.top_logprobs
    if rows is None:
        return step
    full = [at for at, row in enumerate(rows) if top_k is not None and len(row) >= top_k]
    if len(full) == len(rows):
        return step
    if merged := sum(0 < len(row) < (top_k or 0) for row in rows):
        step = replace(step, extra={**step.extra, MERGED: merged})
    if not full:
        return replace(step, top_logprobs=None)
    return replace(
        step,
        top_logprobs=tuple(rows[at] for at in full),
        logprobs=None if step.logprobs is None else tuple(step.logprobs[at] for at in full),
        # There is one text for each row, or none at all.
        token_texts=None,
    )
