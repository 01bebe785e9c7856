"""Two logits processors of vLLM around the one under test: they count the rows of logits that it changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from vllm.v1.sample.logits_processor.interface import LogitsProcessor as V1
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as V2

VARIABLE = "CHANGED_ROWS"
"""Environment variable: the file that gets one line for each call in which a row changed, with their number."""
before: list[torch.Tensor] = []


class Before(V1, V2):  # type: ignore[misc]
    def __init__(self, vllm_config: Any, second: Any, third: Any = None) -> None:
        """Take what either runner passes."""

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        """Nothing depends on the batch."""

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        return True

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        before[:] = [logits.clone()]
        return logits


class After(Before):
    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        same = (logits == before[0]) | (logits.isnan() & before[0].isnan())
        if changed := int((~same).any(-1).sum()):
            with Path(os.environ[VARIABLE]).open("a") as file:
                file.write(f"{changed}\n")
        return logits
