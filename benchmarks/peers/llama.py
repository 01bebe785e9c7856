"""llama.cpp's own server with the embedded model, one thread and open counters: `python -m benchmarks.peers.llama`."""

from __future__ import annotations

import signal
import sys
import time
from typing import Final

from benchmarks.peers.recipes import HERE, MODEL

GGUF: Final = HERE.parents[1] / "models" / "embedded" / "model.gguf"


def main() -> int:
    """Serve until a signal ends it."""
    import xllamacpp

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    params = xllamacpp.CommonParams()
    params.model.path = str(GGUF)
    params.model_alias = {MODEL}
    params.n_ctx, params.n_parallel = 640 * 2, 2
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.warmup = False
    params.endpoint_metrics = params.endpoint_slots = True
    server = xllamacpp.Server(params)
    print(f"listening on {server.listening_address}/v1", file=sys.stderr, flush=True)
    while True:
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
