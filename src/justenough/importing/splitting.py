"""Splits a recorded thought into the steps of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from justenough.errors import TraceFormatError
from justenough.grading import Grader
from justenough.grading.graders import is_right
from justenough.signal.answers import answer_span
from justenough.signal.signal import MIN_COVERAGE
from justenough.signal.steps import splitter
from justenough.signal.thought import ANY, Follower, ThoughtFormat
from justenough.trace import Probe, Step, Trace


def split(trace: Trace, name: str, *, grader: Grader, targets: Sequence[str]) -> Trace:
    """The trace of one completion as a stream, whose thought the splitter of this name divides into steps.

    A record does not tell what the model would have answered after an earlier step. So its answer is the one that the
    thought has stated by then ("the answer is 8"), if any; the last step's answer is the text after the thought. A
    completion without a thought stays one step. Raises `TraceFormatError` if the texts of the tokens are not known.
    """
    (step,) = trace.steps
    texts, rows = step.token_texts, step.top_logprobs
    if texts is None or rows is None or not any(texts):
        raise TraceFormatError("the texts of its tokens are not recorded, so its thought cannot be split")
    if len(texts) < MIN_COVERAGE * step.tokens:
        raise TraceFormatError(f"only {len(texts)} of its {step.tokens} tokens are recorded: its thought is not whole")
    ends, thought, closed = _ends(step.text, texts, name)
    signal = replace(trace.signal, splitter=name)
    if not ends and thought == len(texts):
        return replace(trace, shape="streaming", signal=signal)
    # The server counts some tokens at the end of the reply that it does not show.
    hidden = max(0, step.tokens - len(texts))
    parts = [_part(step, begin, end) for begin, end in zip([0, *ends], [*ends, thought], strict=True) if begin < end]
    parts = [replace(part, prompt_tokens=0 if at else step.prompt_tokens) for at, part in enumerate(parts)]
    thought_text = ""
    for at, part in enumerate(parts[:-1]):
        thought_text += part.text
        if (span := answer_span(thought_text)) is not None:
            stated = grader.extract(f"Answer: {thought_text[slice(*span)]}")
            parts[at] = replace(part, answer=stated, correct=is_right(grader, stated, targets))
    last = parts[-1]
    if closed:
        rest = _part(step, thought, len(texts))
        answer = Probe(
            answer=step.answer,
            correct=step.correct,
            tokens=rest.tokens + hidden,
            prompt_tokens=0,
            text=rest.text,
            logprobs=rest.logprobs,
            token_texts=rest.token_texts,
        )
        last = replace(last, answer=step.answer, correct=step.correct, probe=answer)
    else:
        last = replace(last, tokens=last.tokens + hidden)
    parts[-1] = replace(last, finish=step.finish, extra=step.extra)
    return replace(trace, shape="streaming", signal=signal, steps=tuple(parts))


def _ends(text: str, texts: tuple[str, ...], name: str) -> tuple[list[int], int, bool]:
    """The numbers of tokens at the ends of all steps but the last, at the end of the thought, and whether it ends."""
    follower, steps = Follower(*_formats(text)), splitter(name)
    ends: list[int] = []
    words_until = 0
    for at, token in enumerate(texts, 1):
        words = follower.feed(token)
        if words and not words.isspace():
            words_until = at
        if follower.answering:
            break
        if words is not None and steps.feed(words):
            ends.append(at)
    closed = follower.answering and follower.thought and words_until > 0
    thought = words_until if closed else len(texts)
    return [end for end in ends if end < thought], thought, closed


def _formats(text: str) -> tuple[ThoughtFormat, ...]:
    """The formats that the thought may have: a closing tag alone ends a thought that the prompt has opened."""
    opened = (form for form in ANY if form.open not in text and form.close in text)
    return next(((replace(form, opened=True),) for form in opened), ANY)


def _part(step: Step, begin: int, end: int) -> Step:
    """The tokens of a step from `begin` to `end` as a step without an answer."""
    texts = (step.token_texts or ())[begin:end]
    return Step(
        text="".join(texts),
        tokens=end - begin,
        top_logprobs=None if step.top_logprobs is None else tuple(step.top_logprobs[begin:end]),
        logprobs=None if step.logprobs is None else tuple(step.logprobs[begin:end]),
        token_texts=texts,
    )
