"""The batched decoder of the embedded model: ONNX Runtime, one token for each row and step, cache updated in place.

Every token, also of prompts, goes through one graph of the fixed shape `(width, 1)`, and each row attends only to its
own length. So the bits of a row depend only on its own tokens, and not on other rows, on the order of arrival or on a
prefix that was already in the cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from justenough.backends.batched import Decoder, Sample, Slot
from justenough.errors import MissingExtra

try:
    import onnxruntime
except ImportError as error:
    raise MissingExtra("onnxruntime", extra="demo") from error

_QUIET: Final = 3


class Engine(Decoder):
    """Decodes up to `width` sequences at once; not thread-safe."""

    def __init__(self, path: Path, *, width: int = 32, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _QUIET
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        super().__init__(
            rows=width,
            vocabulary=int(self._session.get_outputs()[0].shape[2]),
            positions=int(self._session.get_modelmeta().custom_metadata_map["positions"]),
        )
        self.steps = 0
        self._ids = np.zeros((width, 1), dtype=np.int64)
        self._last = np.zeros(width, dtype=np.int32)
        self._total = np.zeros(1, dtype=np.int32)
        self._logits = np.zeros((width, 1, self.vocabulary), dtype=np.float32)
        self._binding = self._session.io_binding()
        self._memory: list[NDArray[np.float32]] = []
        for entry in self._session.get_inputs():
            if not entry.name.startswith("past_"):
                continue
            _, heads, _, size = entry.shape
            self._memory.append(np.zeros((width, int(heads), self.positions, int(size)), dtype=np.float32))
            cache = onnxruntime.OrtValue.ortvalue_from_numpy(self._memory[-1])
            # Input and output share the memory: the new position is written in place, without a copy.
            self._binding.bind_ortvalue_input(entry.name, cache)
            self._binding.bind_ortvalue_output(entry.name.replace("past_", "present_"), cache)
        self._binding.bind_output("logits", "cpu", 0, np.float32, tuple(self._logits.shape), self._logits.ctypes.data)

    def copy(self, source: Slot, target: Slot, positions: slice) -> None:
        """Copy keys and values of some positions from one row to another."""
        for memory in self._memory:
            memory[target.row, :, positions] = memory[source.row, :, positions]

    def step(self) -> list[tuple[Slot, Sample]]:
        """Feed one token to each busy row; return the samples of the rows that have read their prompt."""
        for slot in self.slots:
            # An idle row writes behind its cached tokens, so that its cache stays valid.
            position = min(len(slot.cached), self.positions - 1)
            self._ids[slot.row, 0] = slot.waiting[0] if slot.busy else 0
            self._last[slot.row] = position
            if not slot.busy:
                del slot.cached[position:]
        self._total[0] = int(self._last.max()) + 1
        self._binding.bind_cpu_input("ids", self._ids)
        self._binding.bind_cpu_input("last_position", self._last)
        self._binding.bind_cpu_input("total_length", self._total)
        self._session.run_with_iobinding(self._binding)
        self.steps += 1
        ready: list[Slot] = []
        for slot in self.slots:
            if slot.busy:
                slot.cached.append(slot.waiting.pop(0))
                if not slot.waiting:
                    ready.append(slot)
        if not ready:
            return []
        logits = self._logits[[slot.row for slot in ready], 0].astype(np.float64)
        return list(zip(ready, self.sampled(ready, logits), strict=True))

    def logits(self, slot: Slot) -> NDArray[np.float32]:
        """The logits (V,) that the last step computed for a row."""
        row: NDArray[np.float32] = self._logits[slot.row, 0].copy()
        return row
