"""Answers of recorded traces, judged anew by a grader."""

from __future__ import annotations

from dataclasses import replace

from justenough.grading.graders import Grader
from justenough.trace import Step, Trace


def regraded(trace: Trace, grader: Grader) -> Trace:
    """The trace as a grader sees its answers: right or wrong where it has a target.

    Without one, answers that the grader takes for the last one's equal become that answer, so that agreement with it
    is the grader's, not that of the letters.
    """
    steps = tuple(_read(step, grader) for step in trace.steps)
    if trace.target is not None:
        target = trace.target
        steps = tuple(
            replace(step, correct=None if step.answer is None else grader.grade(step.answer, target)) for step in steps
        )
    elif steps and (last := steps[-1].answer) is not None:
        steps = tuple(
            replace(step, answer=last) if step.answer is not None and grader.grade(step.answer, last) else step
            for step in steps
        )
    return replace(trace, steps=steps)


def _read(step: Step, grader: Grader) -> Step:
    """The answer as the grader extracts it, from the text that it was given in where that is kept."""
    text = step.probe.text if step.probe is not None else step.text
    found = grader.extract(text) if text else None
    return step if found is None else replace(step, answer=found)
