"""Generates `reference/library.md`: every public class and function with its types, fields, units and one example."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
from enum import Enum
from pathlib import Path
from typing import Final

import justenough

EXAMPLES: Final = Path(__file__).parent / "examples.md"
GROUPS: Final = {
    "Decide: the gate": (
        "Gate GateSettings GateSource Scorer RunScore Decision Action Reason replay StepMeter Measurement"
    ),
    "Record: traces": (
        "Token Step Probe Trace read_traces write_traces LoadResult BadLine TraceFile import_file ImportOptions"
    ),
    "Measure: signal and entropy": ("Signal Measured Combination token_entropy sequence_entropy RunningEntropy"),
    "Calibrate: thresholds and evidence": (
        "calibrate Calibration load_calibration Method Mean Info Bayes Universal RiskControlled NetControlled "
        "Checkpoints Decider Examples Outcome Estimate Separation"
    ),
    "Evaluate: rules, figures, advice": (
        "evaluate Evaluation Figures NonInferiority Draws Spread Price load_prices recommend Recommendation "
        "Candidate diagnose Diagnosis Defect"
    ),
    "Run: backends and runners": (
        "open_backend Backend Prompts ThoughtFormat Message Request Finish Problem read_tasks Grader open_grader "
        "collect CollectResult Collector Progress Runner RunSettings Branching Run Observer LiveRule "
        "open_live Rule Stopped"
    ),
    "Spend: token budgets": (
        "allocate Allocation Expectation RightGivenEntropy StepLength Policy View Ledger Reservation Lapse "
        "LedgerStore LedgerState"
    ),
    "Build in: clients and engines": "gated transformers_stop TransformersStop VLLMProcessor",
}
INTRODUCTION: Final = """\
Every name on this page is imported from `justenough`. Entropies and thresholds are in bits. Log-probabilities are
natural; their names end in `logprobs`. Proportions are fractions, not percent. A type such as `Decide`, `Shape` or
`Json` that appears in a signature is a type alias; see [Type aliases](#type-aliases).

The test suite runs every example. In the examples `traces` is a list of 200 recorded problems of two steps each; the
same traces are in the file `traces.parquet`.
"""
ALIASES: Final = {
    "ArrayLike": "a NumPy array, or what becomes one: a list of numbers, for example",
    "Decide": '`"first"` or `"every"`: the steps after which the gate may stop',
    "Extend": '`"refine"`, `"wait"`, `"effort"`, `"cascade"`, `"vote"` or `"branch"`: how a sequential run continues',
    "Bools, Floats, Ints": "NumPy arrays of `bool`, `float64` or `int64`",
    "Field": '`"entropies"`, `"logprobs"` or `"token_texts"`: what a pooling needs besides',
    "Json": "a JSON value: None, bool, int, float, str, a list or a dict of them",
    "Labels": '`"graded"` or `"agreement"`: what decides whether an answer is right',
    "Logits": '`"raw"`, `"processed"` or `"unknown"`: whether log-probabilities are from before or after the sampler',
    "Score": "a function (problem, finished steps, bits after each of them) → score of the next step",
    "Shape": '`"sequential"` or `"streaming"`: a step is a whole completion, or a part of one thought',
    "Tail": '`"renormalise"`, `"bucket"` or `"full"`: how the probability outside the top k counts',
    "Traces": "a sequence of `Trace`, or a `TraceFile`",
    "Unit": '`"tokens"`, `"calls"` or `"cost"`: what a budget counts',
    "Verdict": '`"separates"`, `"weak"`, `"absent"` or `"cannot tell"`',
}

COMMON: Final = {
    "action": "what to do next",
    "answer": "the answer; None if there is none",
    "auroc": "probability that a wrong answer has more bits than a right one",
    "auroc_within_groups": "the same, over pairs of problems of one group",
    "cohens_d": "effect size: difference of the means of wrong and right answers over the pooled standard deviation",
    "correct": "whether the answer is right; None if it is not graded",
    "data_fingerprint": "SHA-256 of the traces",
    "decide": "the steps after which the gate may stop",
    "extra": "keys of the file that justenough does not know; they are kept",
    "family": "kind of problem",
    "margin": "margin of the non-inferiority test, as a fraction",
    "max_loss": "largest loss of accuracy, as a fraction",
    "max_steps": "number of the step after which a run always ends",
    "method": "name of the threshold method",
    "min_tokens": "tokens that must be generated before the first stop",
    "model": "name of the model",
    "n": "number of labelled problems",
    "name": "name in the registry",
    "patience": "confident steps in a row that a stop needs",
    "policy": "name of the policy",
    "pooling": "how the entropies of a step become one number",
    "problem": "text of the problem",
    "problems": "number of problems",
    "reason": "why",
    "role": "who says it",
    "id": "unique within the task",
    "seed": "seed of all random numbers",
    "separation": "how well the signal tells right from wrong",
    "shape": "what a step is",
    "signal": "which bits are measured",
    "steps": "number of steps",
    "target": "the right answer; None if it is not known",
    "task": "name of the task",
    "temperature": "sampling temperature",
    "text": "the text",
    "threshold_outcomes": "outcome of each threshold method: `ok` or the reason",
    "thresholds": "threshold of each method, in bits; None if it has none",
    "tokens": "number of tokens",
    "total": "the budget",
    "unit": "what is counted",
    "verdict": "the verdict",
    "warnings": "warnings, one sentence each",
}
"""Notes on fields that several classes have, for those without a docstring of their own."""


def examples() -> dict[str, str]:
    """Public name → its example, as a doctest."""
    parts = re.split(r"^## (\w+)\n", EXAMPLES.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {
        name: text.strip().removeprefix("```python\n").removesuffix("\n```")
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def library() -> str:
    """The page."""
    shown = examples()
    errors = [name for name in justenough.__all__ if _is_error(getattr(justenough, name))]
    parts = ["# Library\n", f"{inspect.getdoc(justenough)}\n", INTRODUCTION]
    for title, names in GROUPS.items():
        parts.append(f"## {title}\n")
        for name in names.split():
            parts.append(_entry(name, getattr(justenough, name), shown[name]))
    parts.append("## Errors\n\n`str(error)` contains the hint, which says how to mend the problem.\n")
    parts += [_entry(name, getattr(justenough, name), shown.get(name, "")) for name in _by_depth(errors)]
    parts.append("## Type aliases\n")
    parts += [f"- **`{name}`**: {meaning}" for name, meaning in ALIASES.items()]
    return "\n".join(parts)


def _entry(name: str, thing: object, example: str) -> str:
    parts = [f"### `{name}`\n"]
    if inspect.isclass(thing):
        parts += _class(name, thing)
    elif inspect.isfunction(thing):
        parts += [_code(_signature(name, thing)), f"{inspect.getdoc(thing)}\n"]
    if example:
        parts.append(_code(example))
    return "\n".join(parts)


def _class(name: str, thing: type) -> list[str]:
    parts: list[str] = []
    bases = [base.__name__ for base in thing.__bases__ if base.__name__ in justenough.__all__]
    if not _is_protocol(thing) and not issubclass(thing, Enum):
        parts.append(_code(_constructor(name, thing)))
    kind = "Protocol: any object with these members fits. " if _is_protocol(thing) else ""
    base = f"A kind of `{bases[0]}`. " if bases else ""
    parts.append(f"{kind}{base}{_own_doc(thing)}\n")
    notes = _field_notes(thing)
    if issubclass(thing, Enum):
        parts += [f"- **`{member.name}`** = `{member.value!r}`{_colon(notes.get(member.name))}" for member in thing]
        parts.append("")
    elif rows := _fields(thing):
        parts += [f"- **`{field}`**: `{kind}`{_colon(notes.get(field) or note(field))}" for field, kind in rows]
        parts.append("")
    elif attributes := [f"- **`.{name}`**: {text}" for name, text in notes.items() if not name.startswith("_")]:
        parts += ["Attributes:\n", *attributes, ""]
    if methods := list(_methods(thing)):
        parts += ["Methods and properties:\n", *methods, ""]
    return parts


def _constructor(name: str, thing: type) -> str:
    if dataclasses.is_dataclass(thing) or "__init__" in vars(thing):
        return _signature(name, thing.__init__)  # type: ignore[misc]
    if hasattr(thing, "_fields"):
        return _signature(name, thing.__new__)
    owner = next((base for base in thing.__mro__ if "__init__" in vars(base)), object)
    return f"{name}()" if owner is object else _signature(name, owner.__init__)


def _signature(name: str, function: object) -> str:
    """`name(parameter: type = default, …) -> type`, over several lines if it is long."""
    assert callable(function)
    signature = inspect.signature(function)
    parameters = [one for key, one in signature.parameters.items() if key not in ("self", "cls", "_cls")]
    shown: list[str] = []
    keyword_only = False
    for one in parameters:
        if one.kind is inspect.Parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            shown.append("*")
        default = "" if one.default is inspect.Parameter.empty else f" = {_default(one.default)}"
        shown.append(f"{one.name}: {_type(one.annotation)}{default}")
    answer = signature.return_annotation
    arrow = "" if name[0].isupper() or answer is inspect.Signature.empty else f" -> {_type(answer)}"
    line = f"{'async ' if inspect.iscoroutinefunction(function) else ''}{name}({', '.join(shown)}){arrow}"
    if len(line) <= 100:
        return line
    inner = ",\n    ".join(shown)
    return f"{'async ' if inspect.iscoroutinefunction(function) else ''}{name}(\n    {inner},\n){arrow}"


def _default(value: object) -> str:
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    text = repr(value)
    return "…" if "<" in text or text.startswith(("mappingproxy", "frozenset")) else text.replace("'", '"')


def _type(annotation: object) -> str:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    text = re.sub(r"^ClassVar\[(.*)\]$", r"\1", text.removeprefix("typing."))
    text = text.replace("np.", "").replace("pa.Table", "pyarrow.Table")
    return text.replace("pd.DataFrame", "pandas.DataFrame").replace("pl.DataFrame", "polars.DataFrame")


def _fields(thing: type) -> list[tuple[str, str]]:
    """Names and types of the fields of a dataclass or a named tuple."""
    if dataclasses.is_dataclass(thing):
        return [(field.name, _type(field.type)) for field in dataclasses.fields(thing)]
    names = getattr(thing, "_fields", ())
    return [(name, _type(thing.__annotations__[name])) for name in names]


def _field_notes(thing: type) -> dict[str, str]:
    """The docstring under each field."""
    source = textwrap.dedent(inspect.getsource(thing))
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    notes: dict[str, str] = {}
    for base in thing.__bases__:
        if base.__module__.startswith("justenough."):
            notes |= _field_notes(base)
    init = next((one for one in body.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
    for block in (body.body, init.body if init is not None else []):
        for before, after in itertools.pairwise(block):
            if not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)):
                continue
            target = before.target if isinstance(before, ast.AnnAssign) else None
            if isinstance(before, ast.Assign):
                target = before.targets[0]
            name = getattr(target, "id", None) or getattr(target, "attr", None)
            if name is not None:
                notes[name] = " ".join(str(after.value.value).split())
    return notes


def _methods(thing: type) -> list[str]:
    lines = []
    for name, member in vars(thing).items():
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(function, property):
            answer = inspect.signature(function.fget).return_annotation if function.fget else ""
            lines.append(f"- **`.{name}`**: `{_type(answer)}`{_colon(_line(function))}")
        elif inspect.isfunction(function):
            signature = " ".join(_signature(name, function).split()).replace("( ", "(").replace(", )", ")")
            shown = signature.removeprefix("__call__") if name == "__call__" else f".{signature}"
            lines.append(f"- **`{shown.replace('.async ', 'async .')}`**{_colon(_line(function))}")
    return lines


def _own_doc(thing: type) -> str:
    text = inspect.getdoc(thing) or ""
    return "" if text.startswith(f"{thing.__name__}(") else text


def _line(thing: object) -> str:
    return " ".join((inspect.getdoc(thing) or "").split())


def note(field: str) -> str:
    """The common note on a field, as a sentence."""
    return f"{COMMON[field][0].upper()}{COMMON[field][1:]}."


def _colon(note: str | None) -> str:
    return f": {note}" if note else ""


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


def _is_protocol(thing: type) -> bool:
    return bool(getattr(thing, "_is_protocol", False))


def _is_error(thing: object) -> bool:
    return inspect.isclass(thing) and issubclass(thing, Exception)


def _by_depth(names: list[str]) -> list[str]:
    """Errors, each one before its kinds."""
    return sorted(names, key=lambda name: [base.__name__ for base in reversed(getattr(justenough, name).__mro__)])
