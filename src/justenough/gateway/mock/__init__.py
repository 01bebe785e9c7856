"""`MockUpstream`: an OpenAI-compatible server for tests, with faults that no real one has on demand."""

from justenough.gateway.mock.chunks import CONFIDENT, UNSURE, Fault
from justenough.gateway.mock.connection import Received
from justenough.gateway.mock.server import MockUpstream

__all__ = ["CONFIDENT", "UNSURE", "Fault", "MockUpstream", "Received"]
