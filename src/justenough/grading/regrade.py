"""Grades the answers of recorded traces again."""

from __future__ import annotations

from dataclasses import replace

from justenough.grading.graders import Grader, is_right
from justenough.trace import Step, Trace


def regraded(trace: Trace, grader: Grader) -> Trace:
    """The trace with the answers and grades of a grader.

    Without a target, answers that the grader considers equal to the last one are replaced by it, so the grader decides
    about agreement, not the letters.
    """
    steps = tuple(_read(step, grader) for step in trace.steps)
    if trace.target is not None:
        others = trace.extra.get("other_targets")
        targets = [trace.target, *(map(str, others) if isinstance(others, list) else ())]
        steps = tuple(replace(step, correct=is_right(grader, step.answer, targets)) for step in steps)
    elif steps and (last := steps[-1].answer) is not None:
        steps = tuple(
            replace(step, answer=last) if step.answer is not None and grader.grade(step.answer, last) else step
            for step in steps
        )
    return replace(trace, steps=steps)


def agreeing(trace: Trace, grader: Grader) -> Trace:
    """The trace with agreement as its grades: an answer is right if the grader finds it equal to the last one."""
    steps = regraded(replace(trace, target=None), grader).steps
    last = steps[-1].answer
    steps = tuple(replace(step, correct=step.answer is not None and step.answer == last) for step in steps)
    return replace(trace, steps=steps)


def _read(step: Step, grader: Grader) -> Step:
    """The step with the answer that the grader extracts from its text, if the text was recorded."""
    text = step.probe.text if step.probe is not None else step.text
    answer = grader.extract(text) if text else None
    return step if answer is None else replace(step, answer=answer)
