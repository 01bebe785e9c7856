"""What one problem's run produced, step by step: `Token`, `Probe`, `Step`, `Trace`, and their JSON objects.

A step carries its signal in one of four forms, the richest first: `top_logprobs`, `entropies`, the mean `entropy`, or a
stand-in `uncertainty` that the trace's `signal.kind` names. Unknown keys stay in `extra` and are written back.
"""

from justenough.trace.exchange import (
    data_fingerprint,
    fingerprint_of,
    signal_from_json,
    trace_digest,
    trace_from_json,
    trace_to_json,
)
from justenough.trace.types import SHAPES, Json, Probe, Shape, Step, Token, Trace, hashed

__all__ = [
    "SHAPES",
    "Json",
    "Probe",
    "Shape",
    "Step",
    "Token",
    "Trace",
    "data_fingerprint",
    "fingerprint_of",
    "hashed",
    "signal_from_json",
    "trace_digest",
    "trace_from_json",
    "trace_to_json",
]
