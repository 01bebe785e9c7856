"""Grades the answers of recorded traces again."""

from __future__ import annotations

from dataclasses import replace

from justenough.grading.graders import Grader
from justenough.trace import Step, Trace


def regraded(trace: Trace, grader: Grader) -> Trace:
    """The trace with the answers and grades of a grader.

    Without a target, answers that the grader considers equal to the last one are replaced by it, so the grader decides
    about agreement, not the letters.
    """
    steps = [_read(step, grader) for step in trace.steps]
    target, last = trace.target, steps[-1].answer
    for number, step in enumerate(steps):
        if target is not None:
            correct = None if step.answer is None else grader.grade(step.answer, target)
            steps[number] = replace(step, correct=correct)
        elif step.answer is not None and last is not None and grader.grade(step.answer, last):
            steps[number] = replace(step, answer=last)
    return replace(trace, steps=tuple(steps))


def _read(step: Step, grader: Grader) -> Step:
    """The step with the answer that the grader extracts from its text, if the text was recorded."""
    text = step.probe.text if step.probe is not None else step.text
    answer = grader.extract(text) if text else None
    return step if answer is None else replace(step, answer=answer)
