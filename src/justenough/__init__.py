"""Let a reasoning model stop as soon as its own entropy says that it knows, and prove what that saved and cost.

All public names are here. Each of them is loaded when it is first used, so `import justenough` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from justenough.backends.protocol import Backend, Finish, Message, Request
    from justenough.backends.registry import open_backend
    from justenough.budget.allocation import Allocation, allocate
    from justenough.budget.curves import RightGivenEntropy, StepLength
    from justenough.budget.expectation import Expectation
    from justenough.budget.ledger import Ledger, Reservation
    from justenough.budget.ledgerfile import Lapse, LedgerState, LedgerStore
    from justenough.budget.policies import Policy, View
    from justenough.calibration.calibration import Calibration, calibrate, load_calibration
    from justenough.calibration.certified import Checkpoints, NetControlled, RiskControlled
    from justenough.calibration.decider import Decider
    from justenough.calibration.examples import Examples, Method, Outcome
    from justenough.calibration.thresholds import Bayes, Info, Mean, Universal
    from justenough.errors import (
        BackendError,
        BackendRejected,
        BackendUnavailable,
        BudgetError,
        CalibrationError,
        GatingRefused,
        InputError,
        Interrupted,
        JustEnoughError,
        LedgerError,
        LogprobsError,
        LogprobsMissing,
        MissingExtra,
        ModelMismatch,
        NotEnoughExamples,
        NothingCertified,
        ProblemRefused,
        SettingsMismatch,
        SignalMismatch,
        TraceFormatError,
    )
    from justenough.evaluation.costs import Price, load_prices
    from justenough.evaluation.diagnosis import Defect, Diagnosis, diagnose
    from justenough.evaluation.draws import Draws, Spread
    from justenough.evaluation.evaluate import Evaluation, evaluate
    from justenough.evaluation.figures import Figures
    from justenough.evaluation.recommend import Candidate, Recommendation, recommend
    from justenough.gate import Action, Decision, Gate, GateSettings, GateSource, Reason, RunScore, Scorer, replay
    from justenough.grading.graders import Grader, open_grader
    from justenough.grading.tasks import Problem, read_tasks
    from justenough.importing.formats import import_file
    from justenough.importing.options import ImportOptions
    from justenough.prompts import Prompts
    from justenough.runner.collect import Collector, CollectResult, Progress, collect
    from justenough.runner.runner import Run, Runner
    from justenough.runner.settings import Observer, RunSettings
    from justenough.signal.combination import Combination
    from justenough.signal.entropy import RunningEntropy, sequence_entropy, token_entropy
    from justenough.signal.pooling import Measured
    from justenough.signal.signal import Signal
    from justenough.stats.estimates import Estimate
    from justenough.stats.separation import Separation
    from justenough.stats.tango import NonInferiority
    from justenough.thought import ThoughtFormat
    from justenough.trace.files import BadLine, LoadResult, read_traces, write_traces
    from justenough.trace.meter import Measurement, StepMeter
    from justenough.trace.stream import TraceFile
    from justenough.trace.types import Probe, Step, Token, Trace

__version__ = "0.1.0"

__all__ = [
    "Action",
    "Allocation",
    "Backend",
    "BackendError",
    "BackendRejected",
    "BackendUnavailable",
    "BadLine",
    "Bayes",
    "BudgetError",
    "Calibration",
    "CalibrationError",
    "Candidate",
    "Checkpoints",
    "CollectResult",
    "Collector",
    "Combination",
    "Decider",
    "Decision",
    "Defect",
    "Diagnosis",
    "Draws",
    "Estimate",
    "Evaluation",
    "Examples",
    "Expectation",
    "Figures",
    "Finish",
    "Gate",
    "GateSettings",
    "GateSource",
    "GatingRefused",
    "Grader",
    "ImportOptions",
    "Info",
    "InputError",
    "Interrupted",
    "JustEnoughError",
    "Lapse",
    "Ledger",
    "LedgerError",
    "LedgerState",
    "LedgerStore",
    "LoadResult",
    "LogprobsError",
    "LogprobsMissing",
    "Mean",
    "Measured",
    "Measurement",
    "Message",
    "Method",
    "MissingExtra",
    "ModelMismatch",
    "NetControlled",
    "NonInferiority",
    "NotEnoughExamples",
    "NothingCertified",
    "Observer",
    "Outcome",
    "Policy",
    "Price",
    "Probe",
    "Problem",
    "ProblemRefused",
    "Progress",
    "Prompts",
    "Reason",
    "Recommendation",
    "Request",
    "Reservation",
    "RightGivenEntropy",
    "RiskControlled",
    "Run",
    "RunScore",
    "RunSettings",
    "Runner",
    "RunningEntropy",
    "Scorer",
    "Separation",
    "SettingsMismatch",
    "Signal",
    "SignalMismatch",
    "Spread",
    "Step",
    "StepLength",
    "StepMeter",
    "ThoughtFormat",
    "Token",
    "Trace",
    "TraceFile",
    "TraceFormatError",
    "Universal",
    "View",
    "allocate",
    "calibrate",
    "collect",
    "diagnose",
    "evaluate",
    "import_file",
    "load_calibration",
    "load_prices",
    "open_backend",
    "open_grader",
    "read_tasks",
    "read_traces",
    "recommend",
    "replay",
    "sequence_entropy",
    "token_entropy",
    "write_traces",
]

_ROOMS = {
    "backends.protocol": "Backend Finish Message Request",
    "backends.registry": "open_backend",
    "budget.allocation": "Allocation allocate",
    "budget.curves": "RightGivenEntropy StepLength",
    "budget.expectation": "Expectation",
    "budget.ledger": "Ledger Reservation",
    "budget.ledgerfile": "Lapse LedgerState LedgerStore",
    "budget.policies": "Policy View",
    "calibration.calibration": "Calibration calibrate load_calibration",
    "calibration.certified": "Checkpoints NetControlled RiskControlled",
    "calibration.decider": "Decider",
    "calibration.examples": "Examples Method Outcome",
    "calibration.thresholds": "Bayes Info Mean Universal",
    "errors": (
        "BackendError BackendRejected BackendUnavailable BudgetError CalibrationError GatingRefused "
        "InputError Interrupted JustEnoughError LedgerError LogprobsError LogprobsMissing MissingExtra ModelMismatch "
        "NotEnoughExamples NothingCertified ProblemRefused SettingsMismatch SignalMismatch "
        "TraceFormatError"
    ),
    "evaluation.costs": "Price load_prices",
    "evaluation.diagnosis": "Defect Diagnosis diagnose",
    "evaluation.draws": "Draws Spread",
    "evaluation.evaluate": "Evaluation evaluate",
    "evaluation.figures": "Figures",
    "evaluation.recommend": "Candidate Recommendation recommend",
    "gate": "Action Decision Gate GateSettings GateSource Reason RunScore Scorer replay",
    "grading.graders": "Grader open_grader",
    "grading.tasks": "Problem read_tasks",
    "importing.formats": "import_file",
    "importing.options": "ImportOptions",
    "prompts": "Prompts",
    "runner.collect": "CollectResult Collector Progress collect",
    "runner.runner": "Run Runner",
    "runner.settings": "Observer RunSettings",
    "signal.combination": "Combination",
    "signal.entropy": "RunningEntropy sequence_entropy token_entropy",
    "signal.pooling": "Measured",
    "signal.signal": "Signal",
    "stats.estimates": "Estimate",
    "stats.separation": "Separation",
    "stats.tango": "NonInferiority",
    "thought": "ThoughtFormat",
    "trace.files": "BadLine LoadResult read_traces write_traces",
    "trace.meter": "Measurement StepMeter",
    "trace.stream": "TraceFile",
    "trace.types": "Probe Step Token Trace",
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'justenough' has no attribute {name!r}")
    return getattr(import_module(f"justenough.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
