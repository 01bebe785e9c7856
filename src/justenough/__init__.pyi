from justenough.backends.protocol import Backend as Backend, Finish as Finish, Message as Message, Request as Request
from justenough.backends.registry import open_backend as open_backend
from justenough.budget.allocation import Allocation as Allocation, allocate as allocate
from justenough.budget.curves import RightGivenEntropy as RightGivenEntropy, StepLength as StepLength
from justenough.budget.expectation import Expectation as Expectation
from justenough.budget.ledger import Ledger as Ledger, Reservation as Reservation
from justenough.budget.ledgerfile import Lapse as Lapse, LedgerState as LedgerState, LedgerStore as LedgerStore
from justenough.budget.policies import Policy as Policy, View as View
from justenough.calibration.calibration import (
    Calibration as Calibration,
    calibrate as calibrate,
    load_calibration as load_calibration,
)
from justenough.calibration.certified import (
    Checkpoints as Checkpoints,
    NetControlled as NetControlled,
    RiskControlled as RiskControlled,
)
from justenough.calibration.decider import Decider as Decider
from justenough.calibration.examples import Examples as Examples, Method as Method, Outcome as Outcome
from justenough.calibration.thresholds import Bayes as Bayes, Info as Info, Mean as Mean, Universal as Universal
from justenough.errors import (
    BackendError as BackendError,
    BackendRejected as BackendRejected,
    BackendUnavailable as BackendUnavailable,
    BudgetError as BudgetError,
    CalibrationError as CalibrationError,
    ContextExceeded as ContextExceeded,
    GatingRefused as GatingRefused,
    InputError as InputError,
    Interrupted as Interrupted,
    JustEnoughError as JustEnoughError,
    LedgerError as LedgerError,
    LogprobsError as LogprobsError,
    LogprobsMissing as LogprobsMissing,
    MissingExtra as MissingExtra,
    ModelMismatch as ModelMismatch,
    NotEnoughExamples as NotEnoughExamples,
    NothingCertified as NothingCertified,
    ProblemRefused as ProblemRefused,
    SettingsMismatch as SettingsMismatch,
    SignalMismatch as SignalMismatch,
    TraceFormatError as TraceFormatError,
)
from justenough.evaluation.costs import Price as Price, load_prices as load_prices
from justenough.evaluation.diagnosis import Defect as Defect, Diagnosis as Diagnosis, diagnose as diagnose
from justenough.evaluation.draws import Draws as Draws, Spread as Spread
from justenough.evaluation.evaluate import Evaluation as Evaluation, evaluate as evaluate
from justenough.evaluation.figures import Figures as Figures
from justenough.evaluation.recommend import (
    Candidate as Candidate,
    Recommendation as Recommendation,
    recommend as recommend,
)
from justenough.gate import (
    Action as Action,
    Decision as Decision,
    Gate as Gate,
    GateSettings as GateSettings,
    GateSource as GateSource,
    Reason as Reason,
    replay as replay,
)
from justenough.grading.graders import Grader as Grader, open_grader as open_grader
from justenough.grading.tasks import Problem as Problem, read_tasks as read_tasks
from justenough.importing.formats import import_file as import_file
from justenough.importing.options import ImportOptions as ImportOptions
from justenough.integrations.openai.gated import gated as gated
from justenough.integrations.transformers.stop import (
    TransformersStop as TransformersStop,
    transformers_stop as transformers_stop,
)
from justenough.integrations.vllm.processor import VLLMProcessor as VLLMProcessor
from justenough.prompts import Prompts as Prompts
from justenough.rules.live import LiveRule as LiveRule, open_live as open_live
from justenough.rules.rules import Rule as Rule, Stopped as Stopped
from justenough.runner.branching import Branching as Branching
from justenough.runner.collect import (
    Collector as Collector,
    CollectResult as CollectResult,
    Progress as Progress,
    collect as collect,
)
from justenough.runner.runner import Run as Run, Runner as Runner
from justenough.runner.settings import Observer as Observer, RunSettings as RunSettings
from justenough.signal.combination import Combination as Combination
from justenough.signal.entropy import (
    RunningEntropy as RunningEntropy,
    sequence_entropy as sequence_entropy,
    token_entropy as token_entropy,
)
from justenough.signal.pooling import Measured as Measured
from justenough.signal.scorer import RunScore as RunScore, Scorer as Scorer
from justenough.signal.signal import Signal as Signal
from justenough.signal.thought import ThoughtFormat as ThoughtFormat
from justenough.stats.estimates import Estimate as Estimate
from justenough.stats.separation import Separation as Separation
from justenough.stats.tango import NonInferiority as NonInferiority
from justenough.trace.files import (
    BadLine as BadLine,
    LoadResult as LoadResult,
    TraceFile as TraceFile,
    read_traces as read_traces,
    write_traces as write_traces,
)
from justenough.trace.meter import Measurement as Measurement, StepMeter as StepMeter
from justenough.trace.types import Probe as Probe, Step as Step, Token as Token, Trace as Trace

__version__: str
__all__: list[str]
