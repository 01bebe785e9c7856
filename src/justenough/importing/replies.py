"""From an OpenAI-style reply with log-probabilities to a step, and the top k that all replies of a file share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from justenough.errors import TraceFormatError
from justenough.signal.signal import MIN_COVERAGE
from justenough.thought import THINK
from justenough.trace import Step, Trace, trace_from_json, trace_to_json
from justenough.wire import Choice, Usage, aligned

MERGED: Final = "merged_rows"
"""Key of a step's extra: tokens whose log-probabilities came with fewer entries than the others'."""


def said(choice: Choice) -> str:
    """The whole text, with reasoning that the server took out back in its tags."""
    return f"{THINK.open}{choice.reasoning}{THINK.close}{choice.text}" if choice.reasoning else choice.text


def step_of(choice: Choice, usage: Usage | None, *, answer: str | None, correct: bool | None) -> Step:
    """One reply as a step; `top_logprobs` has one row for each entry, empty where it came without.

    Raises `TraceFormatError` where nothing tells how many tokens were generated.
    """
    text = said(choice)
    tokens = aligned(choice.tokens, text, finish=choice.finish)
    counted = usage.completion_tokens if usage is not None else None
    if counted is None and not tokens and text:
        raise TraceFormatError("has neither usage nor log-probabilities: its tokens cannot be counted")
    own = [token.logprob for token in tokens if token.logprob is not None]
    return Step(
        text=text,
        answer=answer,
        correct=correct,
        tokens=len(tokens) if counted is None else counted,
        finish=choice.finish,
        prompt_tokens=usage.prompt_tokens if usage is not None else None,
        top_logprobs=tuple(token.top_logprobs or () for token in tokens) if tokens else None,
        logprobs=tuple(own) if own and len(own) == len(tokens) else None,
        token_texts=tuple(token.text for token in tokens) or None,
    )


def checked(trace: Trace) -> Trace:
    """The trace as it will be read back; raises `TraceFormatError` for what the exchange format cannot hold."""
    rows = [step.top_logprobs for step in trace.steps]
    bare = replace(trace, steps=tuple(replace(step, top_logprobs=_filled(step)) for step in trace.steps))
    read = trace_from_json(trace_to_json(bare))
    return replace(
        read,
        steps=tuple(replace(step, top_logprobs=kept) for step, kept in zip(read.steps, rows, strict=True)),
    )


def _filled(step: Step) -> tuple[Sequence[float], ...] | None:
    return None if step.top_logprobs is None else tuple(row for row in step.top_logprobs if row) or None


def common_top_k(traces: Sequence[Trace]) -> int | None:
    """The largest k that 95 % of the tokens of every measured step came with; None where none has two entries.

    A server may send an entry more (the sampled token) or fewer (merged by their text): the bits of all steps are
    comparable only at a k that all have.
    """
    widths = [_width(step) for trace in traces for step in trace.steps]
    return min((width for width in widths if width >= 2), default=None)


def _width(step: Step) -> int:
    rows = step.top_logprobs
    if not rows:
        return 0
    falling = sorted((len(row) for row in rows), reverse=True)
    return falling[math.ceil(MIN_COVERAGE * len(falling)) - 1]


def at_common_top_k(traces: Sequence[Trace]) -> list[Trace]:
    """The traces with their common k in the signal; rows with fewer entries are left out, and so lower coverage."""
    top_k = common_top_k(traces)
    return [
        replace(
            trace,
            signal=replace(trace.signal, top_k=top_k),
            steps=tuple(narrowed(step, top_k) for step in trace.steps),
        )
        for trace in traces
    ]


def narrowed(step: Step, top_k: int | None) -> Step:
    """The step without rows of fewer than k entries; how many had some is kept under `MERGED`.

    A server that names entries by their decoded text loses those whose texts are equal.
    """
    rows = step.top_logprobs
    if rows is None:
        return step
    kept = [at for at, row in enumerate(rows) if top_k is not None and len(row) >= top_k]
    if len(kept) == len(rows):
        return step
    if merged := sum(0 < len(row) < (top_k or 0) for row in rows):
        step = replace(step, extra={**step.extra, MERGED: merged})
    if not kept:
        return replace(step, top_logprobs=None)
    return replace(
        step,
        top_logprobs=tuple(rows[at] for at in kept),
        logprobs=None if step.logprobs is None else tuple(step.logprobs[at] for at in kept),
        # Texts stand beside rows one to one, or not at all.
        token_texts=None,
    )
