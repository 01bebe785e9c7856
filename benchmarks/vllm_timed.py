"""The processor time of vLLM's worker, for `benchmarks.vllm_overhead`. vLLM's own environment imports it."""

from __future__ import annotations

import time
from typing import Any, Final

from justenough.integrations.vllm.processor import VLLMProcessor

STEPS: Final = ("execute_model", "sample_tokens")
"""Methods of a worker that make a step."""
PLUGIN: Final = ("update_state", "apply", "add_request", "apply_staged_writes")
"""Methods of the plugin that runners call in a step."""
_seconds: Final = {"steps": 0.0, "plugin": 0.0}


class Timed:
    """A method that vLLM adds to its worker, for `collective_rpc`."""

    def processor_seconds(self) -> dict[str, float]:
        """Processor time of the steps, and of the plugin in them, since the first call of this method."""
        if "execute_model" not in vars(self):
            for name in STEPS:
                setattr(self, name, _timed(getattr(self, name), "steps"))
            for name in PLUGIN:
                setattr(VLLMProcessor, name, _timed(getattr(VLLMProcessor, name), "plugin"))
        return dict(_seconds)


def _timed(method: Any, part: str) -> Any:
    def timed(*args: Any, **kwargs: Any) -> Any:
        begin = time.thread_time()
        try:
            return method(*args, **kwargs)
        finally:
            _seconds[part] += time.thread_time() - begin

    return timed
