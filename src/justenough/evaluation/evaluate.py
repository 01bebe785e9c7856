"""Rules × traces → figures with intervals: what `justenough evaluate`, the demo and the report show."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from justenough.calibration.calibration import Calibration
from justenough.calibration.certified import CONFIDENCE, MAX_HARM
from justenough.calibration.thresholds import methods_at
from justenough.errors import InputError
from justenough.evaluation.bench import Bench, drawn
from justenough.evaluation.costs import Price
from justenough.evaluation.draws import Draws
from justenough.evaluation.figures import Figures, estimate_json, interval
from justenough.evaluation.table import Table, table_of
from justenough.gate import Decide, GateSettings
from justenough.signal.signal import Signal
from justenough.stats import RESAMPLES, Separation
from justenough.trace import Json
from justenough.trace.stream import TraceFile, Traces, first_of

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

    def to_json(self) -> dict[str, Json]:
        """The promised keys and more."""
        evidence = self.separation
        gated = self.gated
        return {
            "model": self.model,
            "task": self.task,
            "problems": self.problems,
            "left_out": self.left_out,
            "unanswered": self.unanswered,
            "steps": self.steps,
            "decide": self.decide,
            "signal": self.signal.to_json(),
            "method": self.method,
            "calibrated": self.calibrated,
            "accuracy_first": self.accuracy_first,
            "accuracy_full": self.accuracy_full,
            "accuracy_gated": gated.accuracy,
            "accuracy_change": gated.accuracy_change.value,
            "accuracy_change_ci": interval(gated.accuracy_change),
            "tokens_first": self.tokens_first,
            "tokens_last": self.tokens_last,
            "tokens_full": self.tokens_full,
            "tokens_gated": gated.tokens,
            "saving": gated.saving.value if gated.saving else None,
            "saving_ci": interval(gated.saving),
            "saving_vs_first": gated.saving_vs_first,
            "saving_vs_last": gated.saving_vs_last,
            "cost": gated.cost,
            "cost_saving": gated.cost_saving.value if gated.cost_saving else None,
            "cost_saving_ci": interval(gated.cost_saving),
            "cost_saving_vs_last": gated.cost_saving_vs_last,
            "latency_saving": gated.latency_saving,
            "oracle_saving": self.oracle_saving,
            "oracle_share": gated.oracle_share,
            "stopped": gated.stopped,
            "harm": gated.harm.value if gated.harm else None,
            "harm_ci": interval(gated.harm),
            "rescue": gated.rescue.value if gated.rescue else None,
            "rescue_ci": interval(gated.rescue),
            "mcnemar_p": gated.mcnemar_p,
            "non_inferiority": gated.to_json()["non_inferiority"],
            "cohens_d": evidence.cohens_d.value if evidence.cohens_d else None,
            "cohens_d_ci": interval(evidence.cohens_d),
            "auroc": evidence.auroc.value if evidence.auroc else None,
            "auroc_ci": interval(evidence.auroc),
            "auroc_within_groups": evidence.within_groups.value if evidence.within_groups else None,
            "auroc_within_groups_ci": interval(evidence.within_groups),
            "verdict": evidence.sentence,
            "separation": {
                "cohens_d": estimate_json(evidence.cohens_d),
                "auroc": estimate_json(evidence.auroc),
                "within_groups": estimate_json(evidence.within_groups),
                "right": evidence.right,
                "wrong": evidence.wrong,
            },
            "thresholds": dict(self.thresholds),
            "threshold_outcomes": dict(self.threshold_outcomes),
            "rules": {name: made.to_json() for name, made in self.rules.items()},
            "missing": dict(self.missing),
            "draws": self.draws.to_json(),
            "families": {name: dict(row) for name, row in self.families.items()},
            "warnings": list(self.warnings),
            "margin": self.margin,
            "seed": self.seed,
            "data_fingerprint": self.data_fingerprint,
        }


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
    """Replay rules on traces of one model: a list, or a `TraceFile`, which is gone through a few times and never held.

    With a calibration its gate gives the `gated` figures, on the problems that it was not fitted on; without one they
    are the entropy mean's over cross-fitted draws of 10 examples. `pool` are other labelled traces, from which
    examples are then drawn and the recommended gate is fitted, where it is not given as `recommended`; without it that
    takes cross-validation. `rules` are names, as a list or as `"a,b"`, or `"all"`.
    Raises `SignalMismatch` or `ModelMismatch` for traces that the calibration does not fit, `InputError` where no
    problem is left.
    """
    if not isinstance(rules, str):
        rules = ",".join(rules)
    kept = kept_of(traces, calibration)
    first = first_of(kept)
    signal = calibration.signal if calibration is not None else first.signal
    decided: Decide = decide or (calibration.decide if calibration is not None else "first")
    recommending = recommended is None and ("recommended" in rules or rules == "all")
    bench = Bench(
        kept,
        signal,
        decide=decided,
        margin=margin,
        seed=seed,
        resamples=resamples,
        calibration=calibration,
        prices=prices,
        halves=recommending and pool is None,
    )
    pooled = None if pool is None else table_of(pool, signal)
    base = bench.settings
    if calibration is not None:
        base = replace(GateSettings.of(calibration), decide=decided, decider=None, outlook=None, give_up=None)
    size = n or (calibration.n if calibration is not None else EXAMPLES)
    methods = methods_at(MAX_HARM, CONFIDENCE)
    if calibration is not None:
        methods = methods_at(calibration.max_harm or MAX_HARM, calibration.confidence or CONFIDENCE)
    method = methods["mean" if calibration is None or calibration.method not in methods else calibration.method]
    spread, averaged = drawn(bench, method, base, n=size, draws=draws, pool=pooled)
    fitted = {name: one.fit(bench.table.examples()) for name, one in methods.items()}
    thresholds: dict[str, float | None]
    if calibration is None:
        gated = bench.judged(averaged, decide=decided)
        thresholds = {name: outcome.threshold for name, outcome in fitted.items()}
        reasons: dict[str, str] = {name: outcome.reason for name, outcome in fitted.items()}
    else:
        gated = bench.gate(replace(GateSettings.of(calibration), decide=decided))
        thresholds, reasons = dict(calibration.thresholds), dict(calibration.threshold_outcomes)
    if recommending and pool is not None:
        recommended = bench.recommended(pool)
    chosen = bench.rules(rules, calibration, base, size=size, draws=draws, recommended=recommended, pooled=pooled)
    # All intervals come from the same resamples, taken once.
    shown = bench.figures({"": gated, **chosen})
    final, seen = bench.table.correct[:, -1], bench.seen
    return Evaluation(
        model=first.model,
        task=", ".join(sorted(seen.tasks - {""})),
        problems=len(bench.table),
        left_out=kept.passed_over if isinstance(kept, TraceFile) else sum(1 for _ in traces) - len(kept),
        unanswered=int(bench.table.unanswered[:, -1].sum()),
        steps=bench.table.steps,
        decide=decided,
        signal=signal,
        method=method.name if calibration is None else calibration.method,
        calibrated=calibration is not None,
        accuracy_first=float(bench.table.correct[:, 0].mean()),
        accuracy_full=float(final.mean()),
        gated=shown.pop(""),
        tokens_first=float(bench.table.spent[:, 0].sum()),
        tokens_last=float(bench.table.last_only.sum()),
        tokens_full=float(bench.table.spent[:, -1].sum()),
        oracle_saving=bench.oracle_saving,
        separation=bench.separation(),
        thresholds=thresholds,
        threshold_outcomes=reasons,
        rules=shown,
        missing=bench.missing,
        draws=spread,
        families=_families(seen.families, bench.table),
        warnings=_warnings(seen.models, prices),
        margin=margin,
        seed=seed,
        data_fingerprint=seen.fingerprint,
    )


def kept_of(traces: Traces, calibration: Calibration | None) -> Traces:
    """Traces without the problems that a calibration was fitted on; raises `InputError` where none is left."""
    if not any(True for _ in traces):
        raise InputError("there is no trace to evaluate", hint="collect some first")
    if calibration is None:
        return traces
    fitted_on = frozenset(calibration.fitted_on)
    kept: Traces
    if isinstance(traces, TraceFile):
        kept = traces.without(fitted_on)
    else:
        kept = [trace for trace in traces if trace.hashed_id not in fitted_on]
    if not any(True for _ in kept):
        raise InputError(
            f"all {sum(1 for _ in traces)} problems were used for the calibration, none is left to evaluate on",
            hint="calibrate with -n on some of them, or evaluate other traces",
        )
    return kept


def _families(names: Sequence[str], table: Table) -> dict[str, dict[str, float]]:
    of_problem = np.array(names)
    rows: dict[str, dict[str, float]] = {}
    for name in sorted(set(names)):
        member = of_problem == name
        rows[name] = {
            "problems": int(member.sum()),
            "accuracy_first": float(table.correct[member, 0].mean()),
            "accuracy_full": float(table.correct[member, -1].mean()),
        }
    return rows


def _warnings(models: Collection[str], prices: Mapping[str, Price] | None) -> tuple[str, ...]:
    if len(models) > 1 and prices is None:
        return (f"tokens of {', '.join(sorted(models))} are added up; they cost differently: give --prices",)
    return ()
