"""Samples of lm-evaluation-harness (`--log_samples`, `samples_TASK_TIME.jsonl`), of tasks with several choices.

Source: lm-evaluation-harness, `lm_eval/evaluator.py` (`doc_id`, `doc`, `target`, `resps`, `filtered_resps`, metrics)
and `loggers/evaluation_tracker.py`, which writes all numbers in the replies as texts. A reply is the log-likelihood of
one choice. Generated text comes without log-probabilities.
"""

from __future__ import annotations

from typing import Final

from justenough.errors import TraceFormatError
from justenough.importing.members import first, items, named, number, numeric, text
from justenough.signal.entropy import entropy_of
from justenough.signal.signal import Signal
from justenough.trace import Json, Step, Trace

SIGNAL: Final = Signal(kind="answer-choice-entropy", top_k=None)
"""Entropy in bits over the choices of the task; higher means less sure. It is not an entropy of tokens."""
_METRICS: Final = ("acc", "acc_norm", "exact_match")


def looks_like(value: dict[str, Json]) -> bool:
    """Whether this is one sample."""
    return "doc_id" in value and ("resps" in value or "filtered_resps" in value)


def read(value: dict[str, Json], *, model: str | None, task: str) -> list[Trace]:
    """The sample; its answer is the number of the likeliest choice, and counts as one token."""
    identity = named(value.get("doc_id"))
    likelihoods = [_likelihood(reply) for reply in items(first(value, "filtered_resps", "resps"))]
    finite = [likelihood for likelihood in likelihoods if likelihood is not None]
    if identity is None or len(finite) < 2 or len(finite) < len(likelihoods):
        raise TraceFormatError(
            "has no log-likelihoods of several choices: lm-eval keeps no log-probabilities of generated text"
        )
    scores = [score for name in _METRICS if (score := number(value.get(name))) is not None]
    doc = value.get("doc")
    step = Step(
        answer=str(max(range(len(finite)), key=finite.__getitem__)),
        correct=scores[0] >= 1 if scores else None,
        tokens=1,
        # Long choices have likelihoods that are 0 as numbers; only their ratio counts.
        uncertainty=entropy_of([value - max(finite) for value in finite]),
    )
    target = named(value.get("target"))
    problem = text(first(doc, "question", "query", "ctx")) or None
    return [
        Trace(id=identity, task=task, model=model or "", problem=problem, target=target, signal=SIGNAL, steps=(step,))
    ]


def _likelihood(reply: Json) -> float | None:
    """The log-likelihood of a choice: the first number in a reply, which may be inside another list."""
    while isinstance(reply, list) and reply:
        reply = reply[0]
    return numeric(reply)
