"""Results of DeepConf as JSON lines: one object for each question with all its traces, or one for each trace.

Source: deepconf, `deepconf-offline.py` and `helper.py`: `question_id`, `question`, `ground_truth`, `config.model_path`
and `all_traces[]` with `confs` (for each token, minus the mean of its top-k log-probabilities), `num_tokens`,
`extracted_answer`, `is_correct`. Its scripts write pickles, which can run code and are never read.
"""

from __future__ import annotations

from typing import Final

from justenough.errors import TraceFormatError
from justenough.importing.members import count, first, inside, items, named, number, objects, text
from justenough.signal.signal import Signal
from justenough.trace import Json, Step, Trace

SIGNAL: Final = Signal(kind="minus-mean-confidence", top_k=None)
"""Minus the mean of the confidences of all tokens; higher means less sure. It is not an entropy."""


def looks_like(value: dict[str, Json]) -> bool:
    """Whether this is a trace with confidences, or a question with such traces."""
    each = next(iter(objects(first(value, "all_traces", "traces"))), value)
    return isinstance(each.get("confs"), list) or isinstance(each.get("group_confs"), list)


def read(value: dict[str, Json], *, model: str | None, task: str) -> list[Trace]:
    """The traces of the question, as runs of one problem."""
    traces = objects(first(value, "all_traces", "traces")) or [value]
    identity = named(first(value, "question_id", "qid", "id"))
    if identity is None:
        raise TraceFormatError("has no question_id")
    name = named(first(value, "model", "model_path")) or named(inside(value, "config", "model_path")) or model or ""
    alone = traces[0] is value
    return [
        Trace(
            id=identity,
            task=task,
            model=name,
            problem=text(value.get("question")) or None,
            target=named(value.get("ground_truth")),
            seed=count(first(each, "seed", "trace_id")) if alone else at,
            signal=SIGNAL,
            steps=(_step(each),),
        )
        for at, each in enumerate(traces)
    ]


def _step(trace: dict[str, Json]) -> Step:
    confidences = [value for item in items(trace.get("confs")) if (value := number(item)) is not None]
    if not confidences:
        raise TraceFormatError("has no confs: only DeepConf's offline mode keeps the confidence of each token")
    tokens = count(trace.get("num_tokens"))
    right = trace.get("is_correct")
    return Step(
        text=text(trace.get("text")),
        answer=named(trace.get("extracted_answer")),
        correct=right if isinstance(right, bool) else None,
        tokens=len(confidences) if tokens is None else tokens,
        finish=text(trace.get("stop_reason")) or None,
        confidences=tuple(confidences),
        uncertainty=-sum(confidences) / len(confidences),
    )
