"""What vLLM's workers answer: `--worker-extension-cls justenough.integrations.vllm.worker.Extension`."""

from __future__ import annotations

from justenough.files import Json
from justenough.integrations.engine.track import TRACKS


class Extension:
    """Methods that vLLM adds to its workers, for `collective_rpc`."""

    def justenough_decisions(self, id: str) -> dict[str, Json] | None:
        """The decisions on the last request with this id; None if this worker has seen none."""
        return TRACKS.report(id)
