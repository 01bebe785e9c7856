"""Compares plain majority with votes weighted by entropy, at equal tokens.

    justenough collect --model embedded --tasks arithmetic --limit 600 --extend vote --steps 8 --out votes.parquet
    python -m benchmarks.votes votes.parquet [--records FOLDER]

FOLDER holds `gsm8k_answer_token_entropy.parquet` (github.com/itsmejul/llm-confidence at a6bee413, Apache-2.0: 5
models, 3 prompts, the entropy of the answer's tokens, normalised) and `mmlu_pro_answers.parquet` (see
benchmarks/records.py). There the samples are the three prompts of a model, or the models of one kind. The entropies
(or stand-ins) of each sample are first divided by their mean over all questions, because their sizes differ between
models. Intervals are 95 % bootstrap over problems, paired.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from benchmarks.recorded.data import load
from benchmarks.recorded.emergence import KINDS, kind_of
from benchmarks.recorded.show import table
from benchmarks.timing import write
from justenough.rules.rules import MissingField
from justenough.rules.votes import Vote, elected, entropy_weights, own_answer
from justenough.stats import paired_bootstrap
from justenough.stats.text import percent
from justenough.trace import Trace
from justenough.trace.files import read_traces

COUNTS: Final = (2, 3, 4, 6, 8)


class Voice(NamedTuple):
    """One sample's answer, whether it is right, its uncertainty and its tokens."""

    answer: str | None
    right: bool
    uncertainty: float
    tokens: float


def compare(problems: Sequence[Sequence[Voice]]) -> dict[str, object]:
    """Both votes on the same samples, with the best possible vote and the mean sample."""
    plain, weighted, single, possible = [], [], [], []
    for voices in problems:
        answers = [voice.answer for voice in voices]
        right = {voice.answer for voice in voices if voice.right and voice.answer is not None}
        plain.append(elected(answers, [1.0] * len(voices)) in right)
        weighted.append(elected(answers, entropy_weights([voice.uncertainty for voice in voices])) in right)
        single.append(np.mean([voice.right for voice in voices]))
        possible.append(bool(right))
    gain = paired_bootstrap(np.array(weighted, dtype=np.float64) - np.array(plain, dtype=np.float64))
    return {
        "problems": len(problems),
        "samples": len(problems[0]),
        "tokens": float(np.mean([sum(voice.tokens for voice in voices) for voices in problems])),
        "single": float(np.mean(single)),
        "plain": float(np.mean(plain)),
        "weighted": float(np.mean(weighted)),
        "any": float(np.mean(possible)),
        "gain": gain._asdict(),
    }


def show(rows: Mapping[str, dict[str, object]]) -> None:
    """Print the rows as a table."""
    shown = []
    for name, row in rows.items():
        gain = row["gain"]
        assert isinstance(gain, dict)
        change = f"{100 * gain['value']:+.2f} [{100 * gain['low']:+.2f}, {100 * gain['high']:+.2f}]"
        shares = [percent(float(str(row[key]))) for key in ("single", "plain", "weighted", "any")]
        shown.append([name, str(row["problems"]), f"{float(str(row['tokens'])):.0f}", *shares, change])
    head = ["samples", "n", "tokens each", "one", "majority", "weighted", "any right", "weighted − majority, points"]
    table(head, shown)


def embedded(traces: Sequence[Trace]) -> dict[str, dict[str, object]]:
    """The votes of the first samples of each problem, for each number of samples."""
    results = {}
    most = len(traces[0].steps)
    for count in [count for count in COUNTS if count <= most]:
        problems = []
        for trace in traces:
            voices = []
            for step in trace.steps[:count]:
                answer, right = own_answer(step)
                bits = step.usable_bits(trace.signal)
                if bits is None:
                    raise MissingField("vote-entropy", "the entropies of every sample")
                voices.append(Voice(answer, right, bits, step.tokens))
            problems.append(voices)
        result = compare(problems)
        # The library's rule gives the same result.
        rule = [Vote(weighted=True, samples=count).replay(trace).correct for trace in traces]
        assert result["weighted"] == float(np.mean(rule))
        results[f"{count} of {traces[0].model}"] = result
    return results


def scaled(columns: Sequence[Sequence[Voice]]) -> list[list[Voice]]:
    """Samples (k, n) as problems (n, k), with each voter's uncertainty divided by its mean."""
    means = [np.mean([voice.uncertainty for voice in column]) or 1.0 for column in columns]
    return [
        [voice._replace(uncertainty=voice.uncertainty / mean) for voice, mean in zip(voices, means, strict=True)]
        for voices in zip(*columns, strict=True)
    ]


def gsm8k(path: Path) -> dict[str, dict[str, object]]:
    """Each model's three prompts as three samples."""
    import pyarrow.parquet as pq

    rows: dict[str, dict[str, dict[str, Voice]]] = {}
    for row in pq.read_table(path).to_pylist():
        if row["entropy"] is None or not np.isfinite(row["entropy"]):
            continue
        answer = row["llm_answer"] or None
        voice = Voice(answer, bool(row["correct"]), float(row["entropy"]), float(row["tokens_used"] or 0))
        rows.setdefault(row["model"], {}).setdefault(row["prompting"], {})[row["prompt_id"]] = voice
    results = {}
    for model, prompts in rows.items():
        shared = sorted(set.intersection(*(set(answers) for answers in prompts.values())))
        if len(prompts) == 3 and len(shared) >= 300:
            columns = [[answers[question] for question in shared] for answers in prompts.values()]
            results[f"3 prompts, {model.rpartition('/')[2]}"] = compare(scaled(columns))
    return results


def mmlu_pro(path: Path) -> dict[str, dict[str, object]]:
    """The models of a kind as samples."""
    records = load(path)
    results = {}
    for kind in KINDS:
        answers = {
            model: {trace.id: trace.steps[0] for trace in traces if trace.steps[0].uncertainty is not None}
            for model, traces in records.by_model.items()
            if kind_of(model) == kind
        }
        answers = {model: steps for model, steps in answers.items() if len(steps) >= 5000}
        if len(answers) < 3:
            continue
        shared = sorted(set.intersection(*(set(steps) for steps in answers.values())))
        columns = [
            [
                Voice(step.answer, step.is_correct, step.uncertainty or 0.0, step.tokens)
                for question in shared
                for step in [steps[question]]
            ]
            for steps in answers.values()
        ]
        results[f"{len(answers)} {kind} models"] = compare(scaled(columns))
    return results


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.votes", description=__doc__)
    parser.add_argument("traces", type=Path)
    parser.add_argument("--records", type=Path)
    options = parser.parse_args()
    results = embedded(read_traces(options.traces).traces)
    show(results)
    if options.records is not None:
        recorded = gsm8k(options.records / "gsm8k_answer_token_entropy.parquet")
        recorded |= mmlu_pro(options.records / "mmlu_pro_answers.parquet")
        print()
        show(recorded)
        results |= recorded
    write("votes", results)


if __name__ == "__main__":
    main()
