"""The report of an evaluation: one self-contained HTML page, or text, Markdown or JSON with the same numbers."""

from justenough.report.write import write_report

__all__ = ["write_report"]
