"""A threshold with its evidence: fitted on labelled traces and stored as JSON, for one signal and one model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, cast

from justenough.calibration.labelled import Labels, combined, draw, examples_of, gathered
from justenough.calibration.thresholds import EXPLANATIONS, METHODS, Method
from justenough.errors import GatingRefused, InputError, ModelMismatch, SignalMismatch
from justenough.files import write_text
from justenough.gate import DECIDES, Decide
from justenough.prompts import Prompts, prompts_from_json
from justenough.signal.signal import COMBINATION, Signal
from justenough.stats import Estimate, Separation, Verdict, separation
from justenough.stats.sequence import one_run_each
from justenough.trace import SHAPES, Json, Shape, Trace, fingerprint_of, signal_from_json

VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One threshold and its evidence. `threshold` None means: never stop."""

    method: str
    threshold: float | None
    """Bits."""
    decide: Decide
    signal: Signal
    model: str
    task: str
    shape: Shape
    max_steps: int
    min_tokens: int
    patience: int
    labels: Labels
    """Whether "right" was graded, or stood in for by agreement of step 1 with the last step."""
    n: int
    n_right: int
    """Examples with a right answer at step 1."""
    n_wrong: int
    """Examples with a wrong answer at step 1."""
    mean_right: float | None
    """Mean over the right answers, in bits; None if there is none."""
    sd_right: float | None
    """Sample standard deviation (ddof 1), bits."""
    mean_wrong: float | None
    """Mean over the wrong answers, in bits; None if there is none."""
    sd_wrong: float | None
    """Sample standard deviation (ddof 1), bits."""
    cohens_d: Estimate | None
    auroc: Estimate | None
    auroc_within_groups: Estimate | None
    verdict: Verdict
    needed: int
    """Further examples needed for a verdict, where there is none yet."""
    thresholds: dict[str, float | None]
    """Every method's threshold in bits on the same examples."""
    threshold_outcomes: dict[str, str]
    """Every method's outcome: `ok` or the reason."""
    guarantee: str | None
    """What is certified, in one sentence; None for a method without a certificate."""
    warnings: tuple[str, ...]
    seed: int
    fitted_on: tuple[str, ...]
    """Hashed ids of the problems used, sorted."""
    data_fingerprint: str
    prompts: Prompts | None = None
    """What the model was asked in the traces, its closing text and answer cue among it; None where no trace says."""
    version: int = VERSION
    """Version of the file format."""

    def check(self, trace: Trace) -> None:
        """Refuse a trace of another signal (`SignalMismatch`), model or shape (`ModelMismatch`)."""
        self.check_run(trace.model, trace.signal, trace.shape, what=f"the steps of {trace.id}")

    def check_run(self, model: str, signal: Signal, shape: Shape, *, what: str = "the steps of this run") -> None:
        """Refuse a run of another signal (`SignalMismatch`), model or shape (`ModelMismatch`)."""
        self.signal.require(signal.pooled_as(self.signal), what=what)
        if model != self.model:
            raise ModelMismatch(
                f"{what} are by {model}, the calibration is for {self.model}",
                hint="thresholds differ from model to model: calibrate on traces of this one",
            )
        if shape != self.shape:
            raise SignalMismatch(
                f"{what} are {shape}, the calibration is for {self.shape} ones",
                hint="calibrate on traces of this shape",
            )

    def to_json(self) -> dict[str, Json]:
        """A JSON object."""
        out = cast("dict[str, Json]", asdict(self))
        for key in ("cohens_d", "auroc", "auroc_within_groups"):
            estimate = getattr(self, key)
            out[key] = None if estimate is None else dict(estimate._asdict())
        out["signal"] = self.signal.to_json()
        out["prompts"] = None if self.prompts is None else self.prompts.to_json()
        out["warnings"], out["fitted_on"] = list(self.warnings), list(self.fitted_on)
        return out

    def dumps(self) -> str:
        """The text of a calibration file."""
        return json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, path: Path | str) -> None:
        """Write a calibration file, whole or not at all; raises `InputError` if the folder cannot be written."""
        write_text(Path(path), self.dumps())


def load_calibration(path: Path | str) -> Calibration:
    """Read a calibration file; raises `InputError` that says what is wrong with it."""
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}", hint="make one: justenough calibrate"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}", hint="make it anew: justenough calibrate") from error
    return calibration_from_json(value, where=str(path))


def calibration_from_json(value: Json, *, where: str = "calibration") -> Calibration:
    """Read a calibration's JSON object; raises `InputError` that names the key."""
    hint = "make it anew: justenough calibrate"
    if not isinstance(value, dict) or "threshold" not in value or "signal" not in value:
        raise InputError(f"{where} is no calibration", hint=hint)
    if value.get("version") != VERSION:
        raise InputError(f"{where} has version {value.get('version')!r}, this is for version {VERSION}", hint=hint)
    wanted = {field for field in Calibration.__dataclass_fields__ if field not in ("version", "prompts")}
    if missing := sorted(wanted - value.keys()):
        raise InputError(f"{where} lacks {', '.join(missing)}", hint=hint)
    fields: dict[str, object] = {key: value[key] for key in wanted}
    for key in ("threshold", "mean_right", "sd_right", "mean_wrong", "sd_wrong"):
        if not _is_number_or_null(value[key]):
            raise InputError(f"{where}: {key} is {value[key]!r}, expected bits or null", hint=hint)
    for key, allowed in (("decide", DECIDES), ("shape", SHAPES), ("labels", ("graded", "agreement"))):
        if value[key] not in allowed:
            raise InputError(f"{where}: {key} is {value[key]!r}, expected one of {', '.join(allowed)}", hint=hint)
    for key in ("model", "task", "method", "verdict", "data_fingerprint"):
        if not isinstance(value[key], str):
            raise InputError(f"{where}: {key} is {value[key]!r}, expected text", hint=hint)
    for key in ("max_steps", "min_tokens", "patience", "n", "n_right", "n_wrong", "needed", "seed"):
        if not isinstance(value[key], int) or isinstance(value[key], bool):
            raise InputError(f"{where}: {key} is {value[key]!r}, expected a whole number", hint=hint)
    if not isinstance(value["signal"], dict):
        raise InputError(f"{where}: signal is no object", hint=hint)
    if value["max_steps"] < 1 or value["patience"] < 1 or value["min_tokens"] < 0:  # type: ignore[operator]
        raise InputError(f"{where}: max_steps and patience are at least 1, min_tokens at least 0", hint=hint)
    try:
        fields["signal"] = signal_from_json(value["signal"])
    except InputError as error:
        raise InputError(f"{where}: {error}", hint=hint) from error
    # Files from before prompts were recorded have no such key.
    asked = value.get("prompts")
    fields["prompts"] = None if asked is None else prompts_from_json(asked, where=f"{where}: prompts")
    for key in ("cohens_d", "auroc", "auroc_within_groups"):
        fields[key] = _estimate_from_json(value[key], f"{where}: {key}")
    for key in ("warnings", "fitted_on"):
        entries = value[key]
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise InputError(f"{where}: {key} is no list of texts", hint=hint)
        fields[key] = tuple(entries)
    for key, fits in (("thresholds", _is_number_or_null), ("threshold_outcomes", _is_text)):
        entries = value[key]
        if not isinstance(entries, dict) or not all(fits(entry) for entry in entries.values()):
            raise InputError(f"{where}: {key} is no object of a method's outcomes", hint=hint)
    # Every field was read and checked above; the constructor takes them by name.
    return Calibration(**fields)  # type: ignore[arg-type]


def _is_number_or_null(value: Json) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: Json) -> bool:
    return isinstance(value, str)


def _estimate_from_json(value: Json, where: str) -> Estimate | None:
    if value is None:
        return None
    names = set(Estimate._fields)
    if (
        not isinstance(value, dict)
        or set(value) != names
        or not all(_is_number_or_null(entry) for entry in value.values())
        or value["value"] is None
        or not isinstance(value["n"], int)
    ):
        raise InputError(f"{where} is no estimate", hint="make it anew: justenough calibrate")
    return Estimate(**cast("dict[str, float]", value))  # type: ignore[arg-type]


def calibrate(
    traces: Iterable[Trace],
    *,
    method: str | Method = "mean",
    n: int | None = None,
    seed: int = 0,
    signal: Signal | None = None,
    pooling: str | None = None,
    decide: Decide = "first",
    labels: Labels = "graded",
    force: bool = False,
    min_tokens: int = 0,
    patience: int = 1,
    max_steps: int | None = None,
) -> Calibration:
    """Fit a threshold on `n` of the traces (all by default), drawn by `seed`. They are gone through once and not held.

    `pooling` is another than the recorded one, or `combination`: its weights are then fitted on half of the examples,
    100 at least, and the threshold on the others.

    Raises `GatingRefused` where the signal does not separate right from wrong (METHOD: definitions) and there is no
    certificate, unless `force`; `NotEnoughExamples` or `NothingCertified` where the method has no threshold for want
    of examples; `InputError` where a certificate, which is of step 1, is asked for `decide="every"`. A Bayes outcome
    that says "never stop" is no error: the calibration then has no threshold.
    """
    fitter = _method(method)
    if patience > 1 and decide == "first":
        raise InputError(f"patience {patience} waits for later steps, and only the first decides", hint="decide: every")
    labelled, longest, prompts, warnings = gathered(traces, signal=signal, pooling=pooling, max_steps=max_steps)
    fitted_on = drawn = draw(labelled, n, seed=seed)
    if pooling == COMBINATION:
        drawn, count = combined(drawn, labels=labels, seed=seed)
        warnings.append(f"the combination's weights were fitted on {count} further labels")
    examples = examples_of(drawn, labels=labels)
    outcome = fitter.fit(examples)
    problems = drawn.columns.hashed_ids.tolist()
    if len(set(problems)) < len(problems) and (outcome.guarantee is not None or outcome.reason == "nothing_certified"):
        warnings.append(
            f"{len(problems)} runs of {len(set(problems))} problems: the certificate counts one run of each, drawn by"
            " the seed"
        )
        drawn = drawn.rows(one_run_each(problems, seed=seed))
        examples = examples_of(drawn, labels=labels)
        outcome = fitter.fit(examples)
        problems = drawn.columns.hashed_ids.tolist()
    evidence = separation(examples.entropy, examples.correct, groups=drawn.columns.strata(), problems=problems)
    never_stop = outcome.reason in ("never_stop", "prior_dominates")
    if not never_stop:
        outcome.require()
    if decide == "every":
        if outcome.guarantee is not None:
            raise InputError(
                f"{outcome.method} certifies a threshold for the first step, and `every` decides on later ones too",
                hint="decide: first",
            )
        warnings.append("fitted on the first step: it says nothing of later steps' entropies")
    if outcome.guarantee is None:
        if evidence.gating_refused:
            message = f"gating is not advisable: the signal's separation is {_refusal(evidence)}"
            if not force:
                raise GatingRefused(
                    message,
                    hint="see `justenough diagnose`; --force calibrates all the same, --threshold risk asks for a"
                    " certificate instead",
                )
            warnings.append(f"forced: {message}")
        elif evidence.verdict in ("cannot tell", "weak"):
            warnings.append(f"separation: {evidence.sentence}")
        warnings.append("the threshold carries no guarantee of accuracy")
    if outcome.reason != "ok":
        warnings.append(f"{outcome.method}: {EXPLANATIONS[outcome.reason]}")
    if labels == "agreement":
        warnings.append("label-free: agreement with the last step stood in for being right")
    # The chosen method may carry hyperparameters that the registry's default has not.
    outcomes = {name: make().fit(examples) for name, make in METHODS.items()} | {outcome.method: outcome}
    right, wrong = examples.right, examples.wrong
    return Calibration(
        method=outcome.method,
        threshold=outcome.threshold,
        decide=decide,
        signal=drawn.columns.signal,
        model=drawn.columns.models[0],
        task=", ".join(sorted(set(drawn.columns.tasks))),
        shape=drawn.columns.shape,
        max_steps=longest if max_steps is None else max_steps,
        min_tokens=min_tokens,
        patience=patience,
        labels=labels,
        n=len(drawn),
        n_right=len(right),
        n_wrong=len(wrong),
        mean_right=float(right.mean()) if len(right) else None,
        sd_right=float(right.std(ddof=1)) if len(right) > 1 else None,
        mean_wrong=float(wrong.mean()) if len(wrong) else None,
        sd_wrong=float(wrong.std(ddof=1)) if len(wrong) > 1 else None,
        cohens_d=evidence.cohens_d,
        auroc=evidence.auroc,
        auroc_within_groups=evidence.within_groups,
        verdict=evidence.verdict,
        needed=evidence.needed,
        thresholds={name: other.threshold for name, other in outcomes.items()},
        threshold_outcomes={name: other.reason for name, other in outcomes.items()},
        guarantee=outcome.guarantee,
        warnings=tuple(warnings),
        seed=seed,
        fitted_on=tuple(sorted(fitted_on.columns.hashed_ids)),
        data_fingerprint=fingerprint_of(fitted_on.digests),
        prompts=prompts,
    )


def _method(method: str | Method) -> Method:
    if not isinstance(method, str):
        return method
    if method not in METHODS:
        raise InputError(f"unknown threshold {method!r}", hint=f"one of {', '.join(METHODS)}")
    return METHODS[method]()


def _refusal(evidence: Separation) -> str:
    d, within = evidence.cohens_d, evidence.within_groups
    parts: list[str] = [evidence.verdict]
    if d is not None:
        parts.append(f"d {d.value:.2f}")
    if evidence.auroc is not None:
        parts.append(f"AUROC {evidence.auroc.value:.3f}")
    if within is not None:
        parts.append(f"AUROC within groups {within.value:.3f}")
    return ", ".join(parts)
