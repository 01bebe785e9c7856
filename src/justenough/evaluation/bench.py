"""Traces and the rules replayed on them, each by its own door: the gate's decisions are the `Gate`'s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from justenough.calibration import DECIDES, Calibration, Decide
from justenough.errors import InputError, NotEnoughExamples
from justenough.evaluation.costs import Price
from justenough.evaluation.draws import Draws, calibration_draws
from justenough.evaluation.figures import Figures, Outcomes, figures, outcomes
from justenough.evaluation.recommend import recommend
from justenough.evaluation.table import Table, table_of
from justenough.gate import GateSettings
from justenough.rivals import RIVALS
from justenough.rules import (
    AllSteps,
    AnswerConvergence,
    EntropyGate,
    FixedBudget,
    FixedSteps,
    MissingField,
    Oracle,
    Rule,
    open_rule,
)
from justenough.signals import Signal
from justenough.stats import Separation, separation
from justenough.thresholds import METHODS, Method
from justenough.trace import Trace


def one_kind(traces: Sequence[Trace], calibration: Calibration | None) -> None:
    """Refuse traces of several models, shapes or signals, or that a calibration does not fit."""
    first = traces[0]
    for trace in traces:
        if trace.model != first.model or trace.shape != first.shape:
            raise InputError(
                f"the traces mix {first.model} ({first.shape}) and {trace.model} ({trace.shape})",
                hint="evaluate each apart",
            )
        first.signal.require(trace.signal, what=f"the steps of {trace.id}")
        if calibration is not None:
            calibration.check(replace(trace, signal=trace.signal.pooled_as(calibration.signal)))


def drawn(
    bench: Bench, method: Method, settings: GateSettings, *, n: int, draws: int, pool: Table | None
) -> tuple[Draws, Outcomes]:
    """Figures over calibration draws, of as many examples as there are."""
    source = bench.table if pool is None else pool
    usable = int(np.isfinite(source.bits[:, 0]).sum())
    # A handful of traces still gets its figures: from draws of half of them.
    size = min(n, usable if pool is not None else usable // 2)
    if size < 1:
        raise InputError("no step 1 has a usable signal", hint="see `justenough diagnose`")
    return calibration_draws(bench.table, method, settings, n=size, draws=draws, seed=bench.seed, pool=pool)


class Bench:
    """Traces, their table, and the figures of rules on them."""

    def __init__(
        self,
        traces: Sequence[Trace],
        signal: Signal,
        *,
        decide: Decide,
        margin: float,
        seed: int,
        resamples: int,
        prices: Mapping[str, Price] | None = None,
    ) -> None:
        self.traces = traces
        self.prices = prices
        self.table = table_of(traces, signal, prices=prices)
        self.decide = decide
        self.margin = margin
        self.seed = seed
        self.resamples = resamples
        self.missing: dict[str, str] = {}
        self.settings = GateSettings(
            signal=signal, shape=traces[0].shape, decide=decide, max_steps=max(self.table.steps, 1)
        )
        self.oracle_savings = {at: self._oracle_saving(at) for at in DECIDES}

    def separation(self) -> Separation:
        """Of step 1's signal."""
        usable = np.isfinite(self.table.bits[:, 0])
        groups = self.table.groups
        return separation(
            self.table.bits[usable, 0],
            self.table.correct[usable, 0],
            groups=None if groups is None else [groups[row] for row in np.flatnonzero(usable)],
            seed=self.seed,
            resamples=self.resamples,
        )

    @property
    def oracle_saving(self) -> float:
        """What the oracle saves that decides when the gate does."""
        return self.oracle_savings[self.decide]

    def _oracle_saving(self, decide: Decide) -> float:
        oracle = Oracle(decide)
        spent = sum(oracle.replay(trace).tokens for trace in self.traces)
        full = float(self.table.spent[:, -1].sum())
        return 1 - spent / full if full > 0 else 0.0

    def figures(self, done: Outcomes, *, decide: Decide) -> Figures:
        """The figures of some outcomes; `decide` says with which oracle they are compared."""
        return figures(
            self.table,
            done,
            oracle_saving=self.oracle_savings[decide],
            margin=self.margin,
            seed=self.seed,
            resamples=self.resamples,
        )

    def rule(self, rule: Rule) -> Figures | None:
        """A rule's figures; None, and noted in `missing`, where the traces lack what it needs."""
        try:
            stopped = [rule.replay(trace) for trace in self.traces]
        except MissingField as error:
            self.missing[rule.name] = error.field
            return None
        stops: NDArray[np.int64] = np.array([row.step - 1 for row in stopped], dtype=np.int64)
        tokens = np.array([row.tokens for row in stopped], dtype=np.float64)
        right, final = np.array([row.correct for row in stopped]), self.table.correct[:, -1]
        # A vote's answer need not be that of the step at which it ends.
        done = replace(
            outcomes(self.table, stops, tokens),
            correct=right.astype(np.float64),
            harm=(~right & final).astype(np.float64),
            rescue=(right & ~final).astype(np.float64),
            unanswered=np.array([row.unanswered for row in stopped], dtype=np.float64),
        )
        # All but the gate and its oracle may stop anywhere.
        decide = rule.decide if isinstance(rule, Oracle) else "every"
        return self.figures(done, decide=decide)

    def gate(self, settings: GateSettings) -> Figures:
        """A gate's figures, decided by the `Gate` itself on each trace."""
        signal = settings.signal
        traces = [replace(trace, signal=trace.signal.pooled_as(signal)) for trace in self.traces]
        gate = EntropyGate("entropy", settings)
        stops = np.array([gate.replay(trace).step - 1 for trace in traces], dtype=np.int64)
        return self.figures(outcomes(self.table, stops), decide=settings.decide)

    def rules(
        self,
        wanted: str,
        calibration: Calibration | None,
        settings: GateSettings,
        *,
        size: int,
        draws: int,
        recommended: GateSettings | None,
        pooled: Table | None,
    ) -> dict[str, Figures]:
        """The figures of all rules, or of those named."""
        names = None if wanted == "all" else [name.strip() for name in wanted.split(",") if name.strip()]
        made: dict[str, Figures] = {}
        for rule in (
            self._baselines()
            if names is None
            else [
                open_rule(name, decide=self.decide, others=RIVALS)
                for name in names
                if not name.startswith(("entropy-", "recommended"))
            ]
        ):
            if (found := self.rule(rule)) is not None:
                made[rule.name] = found
        for name, make in METHODS.items():
            if names is not None and f"entropy-{name}" not in names:
                continue
            if calibration is not None:
                threshold = calibration.thresholds.get(name)
                made[f"entropy-{name}"] = self.gate(replace(settings, threshold=threshold))
            else:
                _, averaged = drawn(self, make(), settings, n=size, draws=draws, pool=pooled)
                made[f"entropy-{name}"] = self.figures(averaged, decide=settings.decide)
        if names is not None and (unknown := [n for n in names if n.startswith("entropy-") and n not in made]):
            raise InputError(f"unknown rule {unknown[0]!r}", hint=f"entropy-METHOD with one of {', '.join(METHODS)}")
        if names is None or "recommended" in names:
            if recommended is not None:
                made["recommended"] = self.gate_of(recommended)
            elif pooled is None and (halves := self._halves()) is not None:
                made["recommended"] = self.figures(halves, decide="every")
        return made

    def _baselines(self) -> list[Rule]:
        steps = self.table.steps
        rules: list[Rule] = [FixedSteps(count) for count in range(1, steps)]
        typical = int(np.median(self.table.generated[:, 0]))
        rules += [AllSteps(), Oracle(self.decide), FixedBudget(2 * typical or 1), AnswerConvergence(2)]
        return rules + [make("") for make in RIVALS.values()]

    def recommended(self, pool: Sequence[Trace]) -> GateSettings | None:
        """The recommended gate, fitted on other traces; None, and noted in `missing`, where they are too few."""
        try:
            return recommend(pool, seed=self.seed).settings
        except NotEnoughExamples as error:
            self.missing["recommended"] = str(error)
            return None

    def gate_of(self, settings: GateSettings) -> Figures:
        """The figures of a gate on any pooling of the recorded signal."""
        table = table_of(self.traces, settings.signal, prices=self.prices)
        return self.figures(outcomes(table, table.stops(settings)), decide=settings.decide)

    def _halves(self) -> Outcomes | None:
        """The recommended gate fitted on one half of the problems and decided on the other, each half in turn."""
        order = np.random.default_rng(self.seed).permutation(len(self.traces))
        half = np.zeros(len(self.traces), dtype=bool)
        half[order[: len(order) // 2]] = True
        stops = np.zeros(len(self.traces), dtype=np.int64)
        for fitted in (half, ~half):
            settings = self.recommended([self.traces[int(row)] for row in np.flatnonzero(fitted)])
            if settings is None:
                return None
            held = [self.traces[int(row)] for row in np.flatnonzero(~fitted)]
            stops[~fitted] = table_of(held, settings.signal).stops(settings)
        return outcomes(self.table, stops)
