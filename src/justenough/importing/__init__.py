"""Recorded runs of other tools as traces; bad lines are returned with their number and the reason."""

from justenough.importing.formats import AUTO, FORMATS, import_file, imported
from justenough.importing.options import ImportOptions

__all__ = ["AUTO", "FORMATS", "ImportOptions", "import_file", "imported"]
