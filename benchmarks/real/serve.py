"""Serve a GGUF file with llama.cpp's own server on a port of this machine, until it is interrupted.

    python -m benchmarks.real.serve MODEL.gguf --port 8301 --slots 8 --context 4096 --threads 1

Tokens are drawn from the whole distribution at the request's temperature: the truncating samplers that the server
adds by default are off, as in the library's own `llamacpp:` backend. `--context` is the room of one slot.

A file without a chat template is a base model's: it gets worked examples (`few_shot.jinja`), and an answer ends with
its line.
"""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path
from typing import Final

import xllamacpp

from justenough.backends.llamacpp import read_header
from justenough.backends.notation import model_name

FEW_SHOT: Final = Path(__file__).with_name("few_shot.jinja")
_QUIET: Final = -1


def serve(path: Path, *, port: int, slots: int, context: int, threads: int, batch_threads: int) -> xllamacpp.Server:
    """Start the server; it is up once this returns and stops when the object is let go."""
    params, header = xllamacpp.CommonParams(), read_header(path)
    params.model.path = str(path)
    params.model_alias = {model_name(path, title=header.name)}
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_parallel = slots
    params.n_ctx = context * slots
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = batch_threads
    params.n_threads_http = slots + 2
    params.sampling.top_k, params.sampling.top_p, params.sampling.min_p = 0, 1.0, 0.0
    params.endpoint_metrics = params.endpoint_slots = True
    # Otherwise a model whose layers see a window, such as Gemma, reads the whole prompt again at every step.
    params.swa_full = True
    if not header.has_template:
        params.chat_template, params.antiprompt = FEW_SHOT.read_text(), ["\n"]
    params.warmup = False
    params.verbosity = _QUIET
    return xllamacpp.Server(params)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--port", type=int, default=8301)
    parser.add_argument("--slots", type=int, default=8, help="streams at a time")
    parser.add_argument("--context", type=int, default=4096, help="tokens of one stream, prompt and all (default 4096)")
    parser.add_argument("--threads", type=int, default=1, help="for generation")
    parser.add_argument("--batch-threads", type=int, help="for reading prompts (default: as for generation)")
    options = parser.parse_args()
    server = serve(
        options.model,
        port=options.port,
        slots=options.slots,
        context=options.context,
        threads=options.threads,
        batch_threads=options.batch_threads or options.threads,
    )
    print(f"{options.model.name} at {server.listening_address}, {options.slots} slots", flush=True)
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    ended.wait()


if __name__ == "__main__":
    main()
