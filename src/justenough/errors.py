"""Every error that justenough raises on purpose.

JustEnoughError
├── InputError                  what was given cannot be used (command line: exit 2)
│   ├── LogprobsError           log-probabilities that are no log-probabilities
│   ├── TraceFormatError        a line of a trace file; carries path, line and reason
│   ├── SignalMismatch          bits of one kind offered where another was calibrated
│   ├── ModelMismatch           a calibration of another model
│   ├── SettingsMismatch        a file that holds runs of other settings
│   ├── ProblemRefused          a problem outside the language of the model
│   └── BudgetError             a budget that cannot be spent
│       └── LedgerError         the file that keeps a budget cannot be read or written
├── CalibrationError            the evidence does not carry a threshold (command line: exit 1)
│   ├── NotEnoughExamples       carries how many more are needed
│   ├── NothingCertified        no threshold passes the risk test
│   └── GatingRefused           the signal does not separate right from wrong
├── BackendError                a model could not be asked
│   ├── BackendUnavailable      not reachable, or it timed out (retryable)
│   ├── BackendRejected         it answered with an error of its own
│   ├── ContextExceeded         the conversation is longer than the model's context
│   └── LogprobsMissing         it answered without the log-probabilities asked for
├── Interrupted                 work stopped midway; what was collected is kept (command line: exit 3)
└── MissingExtra                an optional dependency is not installed
"""

from __future__ import annotations


class JustEnoughError(Exception):
    """Base of all errors of this library.

    `hint` says how to mend it, in one sentence; `retryable` says whether the same call may succeed later.
    """

    retryable: bool = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.hint})" if self.hint else message


class InputError(JustEnoughError):
    """What was given cannot be used."""


class LogprobsError(InputError):
    """The values are no log-probabilities, or there are none."""


class TraceFormatError(InputError):
    """A line of a trace file cannot be read; carries `path`, `line` (1-based) and `reason`."""

    def __init__(self, reason: str, *, path: str = "", line: int | None = None, hint: str = "") -> None:
        where = f"{path}:{line}: " if path and line is not None else f"{path}: " if path else ""
        super().__init__(f"{where}{reason}", hint=hint)
        self.path = path
        self.line = line
        self.reason = reason


class SignalMismatch(InputError):
    """A signal differs from the one that the threshold was calibrated on."""


class ModelMismatch(InputError):
    """A calibration belongs to another model."""


class SettingsMismatch(InputError):
    """A file holds runs that were made with other settings."""


class ProblemRefused(InputError):
    """The problem is outside the language of the model."""


class BudgetError(InputError):
    """The budget cannot be spent as asked."""


class LedgerError(BudgetError):
    """The file that keeps a budget cannot be read or written; nothing is said of the budget itself."""


class CalibrationError(JustEnoughError):
    """The evidence does not carry a threshold."""


class NotEnoughExamples(CalibrationError):
    """More labelled examples are needed; `needed` says how many more."""

    def __init__(self, message: str, *, needed: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.needed = needed


class NothingCertified(CalibrationError):
    """No threshold passes the risk test; `needed` says how many labels a harmless signal would take."""

    def __init__(self, message: str, *, needed: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.needed = needed


class GatingRefused(CalibrationError):
    """The signal does not separate right from wrong, so a gate would be harmful."""


class BackendError(JustEnoughError):
    """A model could not be asked."""


class BackendUnavailable(BackendError):
    """The model's server is not reachable, or it did not answer in time."""

    retryable = True


class BackendRejected(BackendError):
    """The model's server answered with an error of its own; `status` is its HTTP status."""

    def __init__(self, message: str, *, status: int, retryable: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.retryable = retryable


class ContextExceeded(BackendError):
    """The conversation is longer than the model's context."""


class LogprobsMissing(BackendError):
    """The model's server answered without the log-probabilities that were asked for."""


class Interrupted(JustEnoughError):
    """Work stopped midway; what was collected is kept and resumes."""


class MissingExtra(JustEnoughError):
    """An optional dependency is not installed; `extra` is the extra of justenough that has it, or None."""

    def __init__(self, module: str, *, extra: str | None = None) -> None:
        wanted = module if extra is None else f"'justenough[{extra}]'"
        super().__init__(f"{module} is not installed", hint=f"pip install {wanted}")
        self.module = module
        self.extra = extra
