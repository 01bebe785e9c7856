"""`MockUpstream`: an OpenAI-compatible server for tests, with faults that a real server cannot produce on demand."""

from justenough.testing.chunks import CONFIDENT, UNSURE, Fault
from justenough.testing.connection import Received
from justenough.testing.server import MockUpstream

__all__ = ["CONFIDENT", "UNSURE", "Fault", "MockUpstream", "Received"]
