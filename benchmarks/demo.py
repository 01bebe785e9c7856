"""Measures time and memory of the demo: `python -m benchmarks.demo`."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.timing import write


def main() -> None:
    """Run `justenough demo` in its own process and measure it."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        command = [sys.executable, "-m", "justenough", "demo", "--out", folder, "--json"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - begun
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"demo: {seconds:.1f} s, peak {peak:,.0f} MiB, {size / 1e6:.1f} MB written")
    write("demo", {"seconds": seconds, "peak_mib": peak, "bytes_written": size})


if __name__ == "__main__":
    main()
