"""An evaluation as one self-contained page to look at, and as text, Markdown and JSON with the same numbers."""

from justenough.report.write import write_report

__all__ = ["write_report"]
