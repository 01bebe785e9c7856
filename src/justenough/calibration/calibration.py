"""A threshold with its evidence: fitted on labelled traces and stored as JSON, for one signal and one model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, cast

from justenough.calibration.certified import Certified, RiskControlled
from justenough.calibration.decider import Decider
from justenough.calibration.fitting import Fit, level_of, repeats, require_later_steps, uncertified
from justenough.calibration.labelled import Labels, combined, draw, examples_of, gathered
from justenough.calibration.stored import REMEDY, fields_from_json
from justenough.calibration.thresholds import EXPLANATIONS, Method, methods_at
from justenough.errors import InputError, ModelMismatch, SignalMismatch
from justenough.files import load_json, write_text
from justenough.gate import Decide, GateSettings
from justenough.prompts import Prompts
from justenough.signal.signal import COMBINATION, Signal
from justenough.stats import Estimate, Verdict, separation
from justenough.stats.drawing import check_seed
from justenough.trace import Json, Shape, Trace, fingerprint_of

VERSION: Final = 1
DECIDER: Final = "decider"
MORE_STEPS: Final[dict[Shape, str]] = {
    "sequential": "collect with --steps 2 or more, or divide the thoughts of imported replies by --split paragraph",
    "streaming": "collect with a finer --splitter, or import with a finer --split, for example sentence",
}
"""How to get traces with more than one step."""


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
    """Whether "right" was graded, asked for, or means that step 1 agrees with the last step."""
    n: int
    n_right: int
    """Examples with a right answer at step 1."""
    n_wrong: int
    """Examples with a wrong answer at step 1."""
    mean_right: float | None = None
    """Mean over the right answers, in bits; None if there is none."""
    sd_right: float | None = None
    """Sample standard deviation (ddof 1), bits."""
    mean_wrong: float | None = None
    """Mean over the wrong answers, in bits; None if there is none."""
    sd_wrong: float | None = None
    """Sample standard deviation (ddof 1), bits."""
    cohens_d: Estimate | None = None
    auroc: Estimate | None = None
    auroc_within_groups: Estimate | None = None
    verdict: Verdict
    needed: int
    """Further examples needed for a verdict, where there is none yet."""
    thresholds: dict[str, float | None]
    """Every method's threshold in bits on the same examples."""
    threshold_outcomes: dict[str, str]
    """Every method's outcome: `ok` or the reason."""
    guarantee: str | None
    """What is certified, in one sentence; None for a method without a certificate."""
    max_harm: float | None = None
    """Level of the guarantee, and of `risk` and `net` among the thresholds: the largest harm, as a fraction."""
    confidence: float | None = None
    """Level of the guarantee, and of `risk` and `net` among the thresholds: the probability that it holds."""
    warnings: tuple[str, ...]
    seed: int
    decider: Decider | None = None
    """What is compared with the threshold in place of the signal; for the method `decider` alone."""
    outlook: Decider | None = None
    """P(the last answer is right), for giving up."""
    give_up: float | None = None
    """A run is stopped as hopeless where the outlook is at or below it; None: never."""
    rows: int | None = None
    """Labelled runs from which the examples were drawn; None in a file from before they were counted."""
    problems: int | None = None
    """Different problems among those runs."""
    judged: int | None = None
    """Answers that a person judged, for labels that were `asked`; None otherwise."""
    judged_in_full: int | None = None
    """Answers that a person would have judged if all of them had been asked for."""
    stopped: int | None = None
    """Examples that the threshold stops before their last step; None in a file from before they were counted."""
    fitted_on: tuple[str, ...]
    """Hashed ids of the problems used, sorted."""
    data_fingerprint: str
    prompts: Prompts | None = None
    """The prompts of the traces, with their closing text and answer cue; None where they were not recorded."""
    version: int = VERSION
    """Version of the file format."""

    def __post_init__(self) -> None:
        GateSettings.of(self)
        for name, value in (("max_harm", self.max_harm), ("confidence", self.confidence)):
            if value is not None and not 0 < value < 1:
                raise InputError(f"{name} is {value!r}, expected a number between 0 and 1", hint="a fraction")

    @property
    def never_stops(self) -> str | None:
        """Why this gate can save nothing, and what to do, in one sentence; None if it can."""
        if self.max_steps == 1:
            return f"this gate saves nothing: it is for one step, and no step follows; {MORE_STEPS[self.shape]}"
        if self.threshold is None:
            outcome = self.threshold_outcomes.get(self.method)
            reason = next((text for key, text in EXPLANATIONS.items() if key == outcome), "")
            why = f" ({reason})" if reason else ""
            return (
                f"this gate never stops: it has no threshold{why}; calibrate on more problems or by another --threshold"
            )
        if self.stopped == 0 or (self.threshold < 0 and (self.decider is not None or self.signal.unit == "bits")):
            return (
                f"this gate never stops: its threshold {self.threshold!r} is below every score that decides; calibrate"
                " on more problems, with a larger --max-harm or fewer --min-tokens"
            )
        return None

    def check(self, trace: Trace) -> None:
        """Refuse a trace of another signal (`SignalMismatch`), model or shape (`ModelMismatch`)."""
        self.check_run(trace.model, trace.signal, trace.shape, what=f"the steps of {trace.id}")

    def check_run(self, model: str, signal: Signal, shape: Shape, *, what: str = "the steps of this run") -> None:
        """Refuse a run of another signal (`SignalMismatch`), model or shape (`ModelMismatch`)."""
        self.signal.require(signal.pooled_as(self.signal), what=what, own="the calibration's")
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
        for key, one in (("decider", self.decider), ("outlook", self.outlook)):
            out[key] = None if one is None else one.to_json()
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
    return calibration_from_json(load_json(path, hint=REMEDY), where=str(path))


def require_calibration(value: object) -> None:
    """Raise `InputError` for something else than a calibration, such as the path of its file."""
    if not isinstance(value, Calibration):
        raise InputError(f"{value!r} is no calibration", hint="justenough.load_calibration(FILE)")


def require_names(models: object) -> None:
    """Raise `InputError` for one text in place of a tuple: each letter would be the name of a calibrated model."""
    if isinstance(models, str):
        raise InputError(f"models is {models!r}", hint=f"models=({models!r},)")


def calibration_from_json(value: Json, *, where: str = "calibration") -> Calibration:
    """Read a calibration's JSON object; raises `InputError` that names the key."""
    try:
        if isinstance(value, dict) and value.get("version", VERSION) != VERSION:
            raise InputError(f"version {value['version']!r}, this is for version {VERSION}")
        # Every field was read and checked; the constructor takes them by name.
        return Calibration(**fields_from_json(value, Calibration))  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"{where}: {error}", hint=REMEDY) from error


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
    max_harm: float | None = None,
    confidence: float | None = None,
    refits: int = 1,
    give_up: bool = False,
) -> Calibration:
    """Fit a threshold on `n` of the traces (all by default), drawn by `seed`. The traces are read once and not kept.

    A certificate counts problems: where a problem has several runs, one of them is drawn. `max_harm` and `confidence`
    are its level (0.01 and 0.95, or the method's own), and all planned `refits` share its error. `pooling` replaces the
    recorded pooling. The weights of `combination` are fitted on half of the examples, at least 100, and the threshold
    on the others. With `give_up` a decider also stops runs whose last answer is unlikely to be right; both thresholds
    share the certificate.

    Raises `GatingRefused` where there is no certificate and the signal does not separate right from wrong (METHOD:
    definitions) or later steps decide (`decide="every"`), unless `force`; `NotEnoughExamples` or `NothingCertified`
    where there are too few examples for a threshold. A Bayes outcome that says "never stop" is not an error: the
    calibration then has no threshold.
    """
    check_seed(seed)
    require_later_steps(patience, decide)
    level = level_of(method, max_harm, confidence)
    methods = methods_at(*level, refits=refits)
    if isinstance(method, str) and method not in (*methods, DECIDER):
        raise InputError(f"unknown threshold {method!r}", hint=f"one of {', '.join((*methods, DECIDER))}")
    if method == DECIDER and decide == "first":
        raise InputError("the decider is fitted on all steps, and only the first decides", hint="--decide every")
    if give_up and method != DECIDER:
        raise InputError("giving up needs the decider", hint="--threshold decider")
    if give_up and labels == "agreement":
        raise InputError(
            "giving up needs graded answers: agreement with the last answer cannot show that it is wrong",
            hint="--labels graded",
        )
    fitter = methods["risk" if method == DECIDER else method] if isinstance(method, str) else method
    certified = isinstance(fitter, Certified)
    if pooling == COMBINATION and decide == "every" and certified:
        raise InputError("the weights of a combination are fitted on step 1", hint="decide: first, or another pooling")
    labelled, longest, prompts, warnings = gathered(
        traces,
        signal=signal,
        pooling=pooling,
        max_steps=max_steps,
        decide="first" if pooling == COMBINATION else decide,
    )
    drawn = draw(labelled.one_run_each(seed=seed) if certified else labelled, n, seed=seed)
    warnings += repeats(labelled, drawn, certified=certified)
    fitted_on = drawn
    if pooling == COMBINATION:
        drawn, count = combined(drawn, labels=labels, seed=seed)
        warnings.append(f"the combination's weights were fitted on {count} further labels")
    opening = drawn.opening
    examples = examples_of(opening, labels=labels)
    evidence = separation(
        examples.entropy,
        examples.correct,
        groups=opening.columns.strata(),
        problems=opening.columns.hashed_ids.tolist() if opening.problems < len(opening) else None,
    )
    fit = Fit(runs=drawn, labels=labels, decide=decide, min_tokens=min_tokens, patience=patience, seed=seed)
    # The hyperparameters of the chosen method may differ from those of the registry.
    outcomes = fit.outcomes(list((methods | {fitter.name: fitter}).values()))
    outcome, decided = outcomes[fitter.name], None
    if method == DECIDER and isinstance(fitter, RiskControlled):
        decided = fit.decided(fitter, limit=longest if max_steps is None else max_steps, give_up=give_up)
        outcome = outcomes[DECIDER] = decided.outcome
        warnings.append(f"the decider was fitted on {decided.decider.n} further labels")
        if give_up and decided.give_up is None:
            warnings.append("no limit for giving up is certified: no run is stopped as hopeless")
    never_stop = outcome.reason in ("never_stop", "prior_dominates")
    if not never_stop:
        outcome.require()
    if outcome.guarantee is None:
        warnings += uncertified(evidence, force=force)
        if decide == "every":
            warnings += fit.later_steps(outcome, force=force)
        change = fit.change("first", outcome.threshold) if decide == "first" and labels == "graded" else None
        measured = f"; on these examples it changes it by {change}" if change else ""
        warnings.append(f"the threshold carries no guarantee of accuracy{measured}")
    elif decide == "every" and not certified:
        raise InputError(
            f"{outcome.method} certifies a threshold for the first step, and `every` decides on later ones too",
            hint="decide: first",
        )
    if outcome.reason != "ok":
        warnings.append(f"{outcome.method}: {EXPLANATIONS[outcome.reason]}")
    if labels == "agreement":
        warnings.append("label-free: agreement with the last step stood in for being right")
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
        max_harm=level[0],
        confidence=level[1],
        warnings=tuple(warnings),
        seed=seed,
        decider=None if decided is None else decided.decider,
        outlook=None if decided is None else decided.outlook,
        give_up=None if decided is None else decided.give_up,
        rows=len(labelled),
        problems=labelled.problems,
        stopped=fit.stopped(outcome.threshold, None if decided is None else decided.decider),
        fitted_on=tuple(sorted(set(fitted_on.columns.hashed_ids))),
        data_fingerprint=fingerprint_of(fitted_on.digests),
        prompts=prompts,
    )
