"""Recorded runs of other tools as traces; bad lines are returned with their number and the reason."""

from justenough.importing.formats import FORMATS, import_traces
from justenough.importing.wanted import Wanted

__all__ = ["FORMATS", "Wanted", "import_traces"]
