"""The report as Markdown and as plain text. Model output is untrusted in both."""

from __future__ import annotations

from justenough.report.advice import advice, cautions
from justenough.report.data import Contents
from justenough.report.sheets import all_sheets
from justenough.report.templates import environment, sentences
from justenough.stats.text import counted


def values_of(contents: Contents) -> dict[str, object]:
    """What the templates of all forms show."""
    return {
        "title": title(contents),
        "advice": advice(contents),
        "measured": sentences("measured", contents),
        "baselines": sentences("baselines", contents.evaluation),
        "cautions": cautions(contents),
        "sheets": all_sheets(contents),
    }


def markdown(contents: Contents) -> str:
    """The report in GitHub's Markdown, which has tables."""
    return environment().get_template("report.md").render(values_of(contents)) + "\n"


def plain_text(contents: Contents) -> str:
    """The report for a terminal."""
    return environment().get_template("report.txt").render(values_of(contents)) + "\n"


def title(contents: Contents) -> str:
    """The model, the task and the number of problems."""
    evaluation = contents.evaluation
    return f"{evaluation.model} on {evaluation.task or 'traces'}: {counted(evaluation.problems, 'problem')}"
