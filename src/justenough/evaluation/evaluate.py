"""Rules × traces → figures with intervals: what `justenough evaluate`, the demo and the report show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final, cast

import numpy as np

from justenough.calibration.calibration import Calibration
from justenough.calibration.certified import CONFIDENCE, MAX_HARM
from justenough.calibration.thresholds import methods_at
from justenough.errors import InputError
from justenough.evaluation.bench import Bench
from justenough.evaluation.costs import Price
from justenough.evaluation.draws import Draws
from justenough.evaluation.figures import Figures, estimate_json, figures_of, separation_json
from justenough.evaluation.table import Table
from justenough.gate import Decide, GateSettings
from justenough.signal.signal import Signal
from justenough.stats import RESAMPLES, Separation
from justenough.stats.drawing import check_seed
from justenough.trace import Json
from justenough.trace.files import TraceFile, Traces, first_of

DRAWS: Final = 200
EXAMPLES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Every figure of a set of traces. Tokens are totals; proportions are fractions."""

    model: str
    task: str
    problems: int
    left_out: int
    """Problems that the calibration was fitted on."""
    unanswered: int
    """Problems whose last step has no answer."""
    steps: int
    decide: Decide
    signal: Signal
    method: str
    """The threshold behind the top-level `gated` figures."""
    calibrated: bool
    """Whether a calibration was given; else the figures are means over cross-fitted draws."""
    accuracy_first: float
    """Accuracy of step 1, as a fraction."""
    accuracy_full: float
    """Accuracy of the last step, as a fraction."""
    gated: Figures
    """Figures of the gate."""
    tokens_first: float
    """Tokens of all first steps."""
    tokens_last: float
    """Tokens of all last steps alone."""
    tokens_full: float
    """Tokens of all steps."""
    oracle_saving: float
    """Saving of a gate that knows which answers are right, as a fraction."""
    separation: Separation
    thresholds: Mapping[str, float | None]
    threshold_outcomes: Mapping[str, str]
    rules: Mapping[str, Figures]
    """Figures of each rule."""
    missing: Mapping[str, str]
    """Rule → the field that it lacks."""
    draws: Draws
    """The entropy mean over many calibration draws."""
    families: Mapping[str, Mapping[str, float]]
    """Family → problems, accuracy of step 1 and of the last step."""
    warnings: tuple[str, ...]
    margin: float
    seed: int
    data_fingerprint: str

    @property
    def best(self) -> str | None:
        """The rule that saves most among those that lose no more accuracy than the margin; the oracle is no rule."""
        saving = {
            name: figures.saving.value
            for name, figures in self.rules.items()
            if name != "oracle" and figures.saving is not None and figures.accuracy_change.value >= -self.margin
        }
        return max(saving, key=lambda name: saving[name]) if saving else None

    def to_json(self) -> dict[str, Json]:
        """The promised keys and more."""
        evidence, gated = self.separation, self.gated.to_json()
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {key: value for key, value in values.items() if isinstance(value, str | int | float | Mapping)}
        return (
            cast("dict[str, Json]", plain)
            | {f"{key}_gated": gated.pop(key) for key in ("accuracy", "tokens")}
            | {key: value for key, value in gated.items() if key != "unanswered"}
            | separation_json(evidence)
            | {
                "signal": self.signal.to_json(),
                "separation": {
                    key: estimate_json(getattr(evidence, key)) for key in ("cohens_d", "auroc", "within_groups")
                }
                | {"right": evidence.right, "wrong": evidence.wrong},
                "rules": {name: figures.to_json() for name, figures in self.rules.items()},
                "best": self.best,
                "draws": self.draws.to_json(),
                "warnings": list(self.warnings),
            }
        )


def evaluate(
    traces: Traces,
    *,
    calibration: Calibration | None = None,
    pool: Traces | None = None,
    recommended: GateSettings | None = None,
    rules: str | Sequence[str] = "all",
    decide: Decide | None = None,
    margin: float = 0.01,
    n: int | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    resamples: int = RESAMPLES,
    prices: Mapping[str, Price] | None = None,
) -> Evaluation:
    """Replay rules on traces of one model: a list, or a `TraceFile`, which is read again on each pass.

    With a calibration, its gate gives the `gated` figures, on the problems that it was not fitted on. Without one they
    are the entropy mean's over cross-fitted draws of 10 examples. `pool` are other labelled traces: the examples are
    then drawn from them, and the recommended gate is fitted on them unless it is given as `recommended`. Without `pool`
    that gate is fitted on each half of the problems for the other half. `rules` are names, as a list or as `"a,b"`, or
    `"all"`. Raises `SignalMismatch` or `ModelMismatch` if the calibration does not fit the traces, `InputError` if no
    problem is left.
    """
    check_seed(seed)
    if not isinstance(rules, str):
        rules = ",".join(rules)
    remaining = unused_by(traces, calibration)
    signal, decided = first_of(remaining).signal, decide or "first"
    methods, size = methods_at(MAX_HARM, CONFIDENCE), n or EXAMPLES
    if calibration is not None:
        signal, decided = calibration.signal, decide or calibration.decide
        methods = methods_at(calibration.max_harm or MAX_HARM, calibration.confidence or CONFIDENCE)
        size = n or calibration.n
    halves = recommended is None and pool is None and ("recommended" in rules or rules == "all")
    bench = Bench(
        remaining,
        signal,
        decide=decided,
        seed=seed,
        calibration=calibration,
        prices=prices,
        pool=pool,
        halves=halves,
        selection=rules,
    )
    method = methods.get("mean" if calibration is None else calibration.method, methods["mean"])
    spread, gated = bench.drawn(method, n=size, draws=draws)
    if calibration is None:
        fitted = {name: one.fit(bench.table.examples()) for name, one in methods.items()}
        thresholds = {name: outcome.threshold for name, outcome in fitted.items()}
        reasons: dict[str, str] = {name: outcome.reason for name, outcome in fitted.items()}
    else:
        gated = bench.gate(replace(GateSettings.of(calibration), decide=decided))
        thresholds, reasons = dict(calibration.thresholds), dict(calibration.threshold_outcomes)
    chosen = bench.rules(rules, size=size, draws=draws, margin=margin, recommended=recommended)
    separation, warnings = bench.separation(), _warnings(bench, prices)
    table, seen, first, missing = bench.table, bench.seen, bench.first, bench.missing
    oracle_saving = bench.oracle_savings[decided]
    # The figures need much memory, but nothing else of the bench.
    del bench
    figures = figures_of(table, {"": gated, **chosen}, margin=margin, seed=seed, resamples=resamples)
    own = figures.pop("")
    return Evaluation(
        model=first.model,
        task=", ".join(sorted(seen.tasks - {""})),
        problems=len(table),
        left_out=remaining.passed_over if isinstance(remaining, TraceFile) else sum(1 for _ in traces) - len(remaining),
        unanswered=int(table.unanswered[:, -1].sum()),
        steps=table.steps,
        decide=decided,
        signal=signal,
        method=method.name if calibration is None else calibration.method,
        calibrated=calibration is not None,
        accuracy_first=float(table.correct[:, 0].mean()),
        accuracy_full=float(table.correct[:, -1].mean()),
        gated=own,
        tokens_first=float(table.spent[:, 0].sum()),
        tokens_last=float(table.last_only.sum()),
        tokens_full=float(table.spent[:, -1].sum()),
        oracle_saving=oracle_saving,
        separation=separation,
        thresholds=thresholds,
        threshold_outcomes=reasons,
        rules=figures,
        missing=missing,
        draws=spread,
        families=_families(seen.families, table),
        warnings=(*_idle(calibration, own, steps=table.steps), *warnings),
        margin=margin,
        seed=seed,
        data_fingerprint=seen.fingerprint,
    )


def unused_by(traces: Traces, calibration: Calibration | None) -> Traces:
    """Traces without the problems that a calibration was fitted on; raises `InputError` if none is left."""
    first_of(traces)  # Raises if there is none.
    if calibration is None:
        return traces
    used = frozenset(calibration.fitted_on)
    if isinstance(traces, TraceFile):
        remaining: Traces = traces.without(used)
    else:
        remaining = [trace for trace in traces if trace.hashed_id not in used]
    if not any(True for _ in remaining):
        raise InputError(
            f"all {sum(1 for _ in traces)} problems were used for the calibration, none is left to evaluate on",
            hint="calibrate with -n on some of them, or evaluate other traces",
        )
    return remaining


def _families(names: Sequence[str], table: Table) -> dict[str, dict[str, float]]:
    members = {name: np.array(names) == name for name in sorted(set(names))}
    return {
        name: {
            "problems": int(member.sum()),
            "accuracy_first": float(table.correct[member, 0].mean()),
            "accuracy_full": float(table.correct[member, -1].mean()),
        }
        for name, member in members.items()
    }


def _idle(calibration: Calibration | None, gated: Figures, *, steps: int) -> tuple[str, ...]:
    """Why the gate saves nothing here, and what to do; empty if it stops at a problem."""
    if gated.stopped:
        return ()
    if calibration is not None and calibration.never_stops:
        return (calibration.never_stops,)
    if steps == 1:
        return ("each trace has only one step, so nothing can be saved: collect with --steps 2 or more",)
    return ("the gate stops at no problem: its threshold is below every score here; calibrate on more such problems",)


def _warnings(bench: Bench, prices: Mapping[str, Price] | None) -> tuple[str, ...]:
    seen, kind = bench.seen, bench.first.signal.kind
    notes = [f"{name}: {note}" for name, note in bench.caveats.items()]
    if len(seen.models) > 1 and prices is None:
        notes.append(f"tokens of {', '.join(sorted(seen.models))} are added; they cost differently: give --prices")
    if seen.ignored:
        field, other = ("uncertainty", "entropy") if kind != "entropy" else ("entropy", "uncertainty")
        notes.append(
            f"{seen.ignored} problems have `{other}`, which is ignored: signal.kind is {kind!r}, which reads `{field}`"
        )
    if not np.isfinite(bench.table.bits[:, 0]).any():
        notes.append("no step 1 has a usable signal, so the gate never stops; see `justenough diagnose`")
    return tuple(notes)
