"""Which bits? The same first steps measured in several kinds of bits, by the same weights in Transformers.

    pip install accelerate          # Transformers needs it to read GGUF files
    python -m benchmarks.real.bits --model smollm2-135m FILE.parquet ...      # measure, and write results/real/bits
    python -m benchmarks.real.bits                                            # the table, from those files alone

Traces keep the paper's bits alone: the 20 largest log-probabilities, renormalised. Here the model reads each first
step again, once, and gives the whole distribution of every token. So all kinds of bits have the same texts. `llama.cpp`
stands for the bits that the traces recorded: the same quantised weights, computed by other kernels. Steps whose text
does not divide into the same number of tokens are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.real.packages import PackageError, catalogue, obtain
from benchmarks.real.plan import PLANS
from benchmarks.real.run import CACHE
from benchmarks.real.servers import RunError
from benchmarks.real.tables import FILES
from justenough.signal.entropy import token_entropy
from justenough.stats.effects import auroc, cohens_d
from justenough.trace import Trace
from justenough.trace.files import read_traces

Floats = NDArray[np.float64]
Kind = Callable[[Floats], Floats]
BITS: Final = FILES / "bits"
RESAMPLES: Final = 2000


def after_temperature(block: Floats, temperature: float) -> Floats:
    """Natural log-probabilities (T, k) of the distribution that tokens are drawn from, among the k alone."""
    scaled = block / temperature
    normalised: Floats = scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)
    return normalised


def largest(block: Floats, k: int) -> Floats:
    """The k largest log-probabilities of each token (T, k), in falling order."""
    return -np.sort(np.partition(-block, k - 1, axis=1)[:, :k], axis=1)


def whole(block: Floats) -> Floats:
    """Bits of the whole distribution (T,)."""
    bits: Floats = -(np.exp(block) * block).sum(axis=1) / np.log(2)
    return bits


KINDS: Final[dict[str, Kind]] = {
    "top-20 renormalised (the paper's)": lambda block: token_entropy(largest(block, 20)),
    "top-20, the rest as one symbol": lambda block: token_entropy(largest(block, 20), tail="bucket"),
    "top-5 renormalised": lambda block: token_entropy(largest(block, 5)),
    "top-5, the rest as one symbol": lambda block: token_entropy(largest(block, 5), tail="bucket"),
    "whole vocabulary": whole,
    "top-20 after temperature 0.7": lambda block: token_entropy(after_temperature(largest(block, 20), 0.7)),
    "whole vocabulary after temperature 0.7": lambda block: whole(after_temperature(block, 0.7)),
}
"""Of natural log-probabilities (T, V) of the whole vocabulary."""
RECORDED: Final = "llama.cpp, top-20 renormalised"


class Row(NamedTuple):
    """One kind of bits over all first steps."""

    kind: str
    mean: float
    rank_correlation: float
    """Spearman's, with the paper's bits."""
    threshold: float
    """The entropy mean: the mean over right answers."""
    d: float | None
    auroc: float | None
    difference: tuple[float, float] | None
    """Limits of the 95 % interval of the AUROC less that of the paper's bits, by paired resampling."""


class Network(NamedTuple):
    """A causal model with its tokenizer."""

    model: Any
    tokenizer: Any


def loaded(weights: Path) -> Network:
    """Read a GGUF file, dequantised to single precision; raises `RunError` if a package is missing."""
    missing = [name for name in ("torch", "transformers", "gguf", "accelerate") if find_spec(name) is None]
    if missing:
        raise RunError(f"{', '.join(missing)} is not installed: pip install accelerate -e '.[hf,llamacpp]'")
    import torch

    from benchmarks.real.lora import load

    torch.set_num_threads(1)
    network, tokenizer = load(weights)
    return Network(network.eval(), tokenizer)


def distributions(network: Network, prompt: str, text: str) -> Floats:
    """Natural log-probabilities (T, V) of each token of an answer, in double precision."""
    import torch

    message = [{"role": "user", "content": prompt}]
    before = network.tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    ids = network.tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = network.model(torch.tensor([[*before, *ids]])).logits[0, len(before) - 1 : -1]
    block: Floats = torch.log_softmax(logits.double(), dim=-1).numpy()
    return np.minimum(block, 0.0)


def measured(network: Network, traces: Sequence[Trace]) -> Iterator[dict[str, object]]:
    """The mean bits of each first step, in all kinds."""
    for number, trace in enumerate(traces, 1):
        step = trace.steps[0]
        if trace.prompts is None or trace.problem is None or not step.token_texts or not step.entropies:
            continue
        block = distributions(network, trace.prompts.ask.format(problem=trace.problem), "".join(step.token_texts))
        if len(block) != len(step.entropies):
            continue
        means = {name: float(kind(block).mean()) for name, kind in KINDS.items()}
        yield {"id": trace.id, "correct": step.is_correct, RECORDED: float(np.mean(step.entropies)), **means}
        print(f"{number} of {len(traces)} first steps", file=sys.stderr, flush=True)


def compare(columns: dict[str, NDArray[np.generic]]) -> list[Row]:
    """A row for each kind, from the columns of a file."""
    correct = columns["correct"].astype(bool)
    bits = {name: columns[name].astype(np.float64) for name in (*KINDS, RECORDED)}
    papers = bits[next(iter(KINDS))]
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(correct), len(correct)) for _ in range(RESAMPLES)]
    draws = [draw for draw in draws if 0 < correct[draw].sum() < len(draw)]

    def area(values: Floats, rows: NDArray[np.int64]) -> float:
        right = correct[rows]
        return auroc(values[rows][right], values[rows][~right]) or 0.0

    base = np.array([area(papers, draw) for draw in draws])
    return [
        Row(
            kind=name,
            mean=float(values.mean()),
            rank_correlation=float(spearmanr(papers, values).statistic),
            threshold=float(values[correct].mean()),
            d=cohens_d(values[correct], values[~correct]),
            auroc=auroc(values[correct], values[~correct]),
            difference=None
            if values is papers or not draws
            else tuple(np.quantile(np.array([area(values, draw) for draw in draws]) - base, (0.025, 0.975)).tolist()),
        )
        for name, values in bits.items()
    ]


def table(path: Path) -> list[str]:
    """The table of one file."""
    read = pq.read_table(path)
    columns = {name: read[name].to_numpy(zero_copy_only=False) for name in read.column_names if name != "id"}
    lines = [
        f"| {path.stem}, n = {len(read)} | mean bits | rank correlation | entropy-mean threshold | d | AUROC |"
        " difference in AUROC |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in compare(columns):
        d, value = ("–" if each is None else f"{each:.3f}" for each in (row.d, row.auroc))
        limits = "–" if row.difference is None else f"[{row.difference[0]:+.3f}, {row.difference[1]:+.3f}]"
        cells = [row.kind, f"{row.mean:.3f}", f"{row.rank_correlation:.3f}", f"{row.threshold:.3f}", d, value, limits]
        lines.append(f"| {' | '.join(cells)} |".replace("-0", "−0"))
    return lines


def main() -> int:
    """Measure the files that are named, or print the tables of those that were measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="*", type=Path)
    parser.add_argument("--model", choices=sorted({name for name, _ in PLANS}))
    parser.add_argument("--cache", type=Path, default=CACHE)
    options = parser.parse_args()
    if options.traces:
        if options.model is None:
            parser.error("--model says which weights read the texts again")
        try:
            network = loaded(obtain(catalogue()[options.model], options.cache / "models"))
        except (RunError, PackageError) as error:
            print(f"bits: {error}", file=sys.stderr)
            return 2
        BITS.mkdir(parents=True, exist_ok=True)
        for path in options.traces:
            rows = list(measured(network, read_traces(path).traces))
            pq.write_table(pa.Table.from_pylist(rows), BITS / path.name)
            print(f"{len(rows)} first steps in {BITS / path.name}")
    for path in sorted(BITS.glob("*.parquet")):
        print("\n".join(table(path)), end="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
