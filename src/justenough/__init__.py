"""Let a reasoning model stop as soon as its own entropy says that it knows, and prove what that saved and cost.

The public names below are loaded when first used, so that `import justenough` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from justenough.budget import Ledger, allocate
    from justenough.calibration.calibration import Calibration, calibrate, load_calibration
    from justenough.errors import JustEnoughError
    from justenough.evaluation import Evaluation, evaluate, recommend
    from justenough.evaluation.diagnosis import Diagnosis, diagnose
    from justenough.gate import Action, Decision, Gate, GateSettings, Reason, replay
    from justenough.signal.entropy import RunningEntropy, sequence_entropy, token_entropy
    from justenough.signal.signal import Signal
    from justenough.trace import Probe, Step, Token, Trace
    from justenough.trace.files import read_traces, write_traces

__version__ = "0.1.0"

__all__ = [
    "Action",
    "Calibration",
    "Decision",
    "Diagnosis",
    "Evaluation",
    "Gate",
    "GateSettings",
    "JustEnoughError",
    "Ledger",
    "Probe",
    "Reason",
    "RunningEntropy",
    "Signal",
    "Step",
    "Token",
    "Trace",
    "allocate",
    "calibrate",
    "diagnose",
    "evaluate",
    "load_calibration",
    "read_traces",
    "recommend",
    "replay",
    "sequence_entropy",
    "token_entropy",
    "write_traces",
]

_ROOMS = {
    "budget": ("Ledger", "allocate"),
    "calibration": ("Calibration", "calibrate", "load_calibration"),
    "evaluation.diagnosis": ("Diagnosis", "diagnose"),
    "errors": ("JustEnoughError",),
    "evaluation": ("Evaluation", "evaluate", "recommend"),
    "gate": ("Action", "Decision", "Gate", "GateSettings", "Reason", "replay"),
    "signal": ("RunningEntropy", "Signal", "sequence_entropy", "token_entropy"),
    "trace": ("Probe", "Step", "Token", "Trace"),
    "trace.files": ("read_traces", "write_traces"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'justenough' has no attribute {name!r}")
    return getattr(import_module(f"justenough.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
