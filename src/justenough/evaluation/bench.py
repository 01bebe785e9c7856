"""Replays rules on traces, in a few passes, so that the traces need not fit into memory."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from justenough.calibration.calibration import Calibration
from justenough.calibration.thresholds import METHODS, Method
from justenough.errors import InputError, NotEnoughExamples
from justenough.evaluation.costs import Price
from justenough.evaluation.draws import Draws, calibration_draws
from justenough.evaluation.figures import Figures, Judged, Outcomes, figures_of, outcomes
from justenough.evaluation.recommend import allowed, candidates, recommend, recommend_from
from justenough.evaluation.table import Table, table_of, tables_of
from justenough.gate import DECIDES, Decide, GateSettings
from justenough.rules.rivals import LIVE, RIVALS
from justenough.rules.rules import (
    AllSteps,
    AnswerConvergence,
    FixedBudget,
    FixedSteps,
    MissingField,
    Oracle,
    Rule,
    Stopped,
    open_rule,
)
from justenough.rules.votes import VOTES, sampled
from justenough.signal.signal import Signal
from justenough.stats import Separation, separation
from justenough.trace import Trace, fingerprint_of, trace_digest
from justenough.trace.stream import Traces, first_of


class Seen:
    """Checks that all traces are of one kind, and collects what identifies the data."""

    def __init__(self, calibration: Calibration | None) -> None:
        self._calibration = calibration
        self.first: Trace | None = None
        self.tasks: set[str] = set()
        self.models: set[str] = set()
        """Models of single steps."""
        self.families: list[str] = []
        """Of each problem."""
        self._digests: list[bytes] = []

    def through(self, traces: Iterable[Trace]) -> Iterator[Trace]:
        """The same traces; raises at the first one of another kind, or that the calibration is not for."""
        for trace in traces:
            first = self.first = self.first or trace
            if trace.model != first.model or trace.shape != first.shape:
                raise InputError(
                    f"the traces mix {first.model} ({first.shape}) and {trace.model} ({trace.shape})",
                    hint="evaluate each separately",
                )
            first.signal.require(trace.signal, what=f"the steps of {trace.id}")
            if (calibration := self._calibration) is not None:
                calibration.check(replace(trace, signal=trace.signal.pooled_as(calibration.signal)))
            self.tasks.add(trace.task)
            self.models.update(step.model or trace.model for step in trace.steps)
            self.families.append(sys.intern(trace.family or ""))
            self._digests.append(trace_digest(trace))
            yield trace

    @property
    def fingerprint(self) -> str:
        """`data_fingerprint` of the traces."""
        return fingerprint_of(self._digests)


class _Stops:
    """Where a rule stopped each problem, one after the other."""

    def __init__(self) -> None:
        self.steps, self.tokens = array("q"), array("q")
        self.correct, self.unanswered = array("b"), array("b")

    def add(self, stopped: Stopped) -> None:
        self.steps.append(stopped.step)
        self.tokens.append(stopped.tokens)
        self.correct.append(stopped.correct)
        self.unanswered.append(stopped.unanswered)

    def outcomes(self, table: Table) -> Outcomes:
        """The outcomes; the answer of a vote may differ from that of the step at which it ends."""
        right, final = np.frombuffer(self.correct, dtype=np.int8) > 0, table.correct[:, -1]
        tokens = np.frombuffer(self.tokens, dtype=np.int64).astype(np.float64)
        return replace(
            outcomes(table, np.frombuffer(self.steps, dtype=np.int64) - 1, tokens),
            correct=right.astype(np.float64),
            harm=(~right & final).astype(np.float64),
            rescue=(right & ~final).astype(np.float64),
            unanswered=np.frombuffer(self.unanswered, dtype=np.int8).astype(np.float64),
        )


def drawn(
    bench: Bench, method: Method, settings: GateSettings, *, n: int, draws: int, pool: Table | None
) -> tuple[Draws, Outcomes]:
    """Figures over calibration draws, with fewer examples per draw where there are not enough."""
    source = bench.table if pool is None else pool
    usable = int(np.isfinite(source.bits[:, 0]).sum())
    # With few traces, each draw takes half of them.
    size = min(n, usable if pool is not None else usable // 2)
    if size < 1:
        raise InputError("no step 1 has a usable signal", hint="see `justenough diagnose`")
    return calibration_draws(bench.table, method, settings, n=size, draws=draws, seed=bench.seed, pool=pool)


class Bench:
    """Traces, their table, and the outcomes of rules on them. The traces are read several times and never kept."""

    def __init__(
        self,
        traces: Traces,
        signal: Signal,
        *,
        decide: Decide,
        margin: float,
        seed: int,
        resamples: int,
        calibration: Calibration | None = None,
        prices: Mapping[str, Price] | None = None,
        halves: bool = False,
    ) -> None:
        """With `halves`, the candidates of the recommended gate are measured in the same pass."""
        self.traces = traces
        self.prices = prices
        self.seen = Seen(calibration)
        oracles = {at: Oracle(at) for at in DECIDES}
        spent = dict.fromkeys(DECIDES, 0)

        def watched() -> Iterator[Trace]:
            for trace in self.seen.through(traces):
                for at, oracle in oracles.items():
                    spent[at] += oracle.replay(trace).tokens
                yield trace

        first = first_of(traces)
        others = candidates(first.signal) if halves else []
        made = tables_of(watched(), list(dict.fromkeys((signal, *others))), prices=prices)
        under = {table.signal: table for table in made}
        self.table, self._candidates = made[0], allowed([under[other] for other in others])
        self.decide = decide
        self.margin = margin
        self.seed = seed
        self.resamples = resamples
        self.missing: dict[str, str] = {}
        self.shape = first.shape
        self._voted = all(sampled(step) for step in first.steps)
        self.settings = GateSettings(signal=signal, shape=self.shape, decide=decide, max_steps=max(self.table.steps, 1))
        full = float(self.table.spent[:, -1].sum())
        self.oracle_savings = {at: 1 - spent[at] / full if full > 0 else 0.0 for at in DECIDES}

    def separation(self) -> Separation:
        """How well the signal of step 1 separates right from wrong."""
        usable = np.isfinite(self.table.bits[:, 0])
        groups = self.table.groups
        return separation(
            self.table.bits[usable, 0],
            self.table.correct[usable, 0],
            groups=None if groups is None else [groups[row] for row in np.flatnonzero(usable)],
            problems=self.table.rows(usable).problems,
        )

    @property
    def oracle_saving(self) -> float:
        """The saving of the oracle that may decide where the gate does."""
        return self.oracle_savings[self.decide]

    def figures(self, judged: Mapping[str, Judged]) -> dict[str, Figures]:
        """The figures of rules."""
        return figures_of(self.table, judged, margin=self.margin, seed=self.seed, resamples=self.resamples)

    def judged(self, done: Outcomes, *, decide: Decide) -> Judged:
        """Outcomes, with the saving of the oracle that may decide at the same places."""
        return Judged(done, self.oracle_savings[decide])

    def replayed(self, rules: Sequence[Rule]) -> dict[str, Judged]:
        """Replay all rules in one pass; a rule that needs fields which the traces lack is listed in `missing`."""
        stops = {rule.name: _Stops() for rule in rules}
        missing: dict[str, str] = {}
        for trace in self.traces:
            for rule in rules:
                if rule.name in missing:
                    continue
                try:
                    stops[rule.name].add(rule.replay(trace))
                except MissingField as error:
                    missing[rule.name] = error.field
        self.missing |= {rule.name: missing[rule.name] for rule in rules if rule.name in missing}
        # All rules except the gate and its oracle may stop anywhere.
        return {
            rule.name: self.judged(
                stops[rule.name].outcomes(self.table), decide=rule.decide if isinstance(rule, Oracle) else "every"
            )
            for rule in rules
            if rule.name not in missing
        }

    def gate(self, settings: GateSettings) -> Judged:
        """A gate on the table's signal; a test checks that it decides like `Gate`."""
        return self.judged(outcomes(self.table, self.table.stops(settings)), decide=settings.decide)

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
    ) -> dict[str, Judged]:
        """The outcomes of all rules, or of the named ones."""
        names = None if wanted == "all" else [name.strip() for name in wanted.split(",") if name.strip()]
        made = self.replayed(
            self._baselines()
            if names is None
            else [
                open_rule(name, decide=self.decide, others={**RIVALS, **VOTES})
                for name in names
                if name not in LIVE and not name.startswith(("entropy-", "recommended"))
            ]
        )
        self.missing |= {name: needed for name, needed in LIVE.items() if names is None or name in names}
        for name, make in METHODS.items():
            if names is not None and f"entropy-{name}" not in names:
                continue
            if calibration is not None:
                threshold = calibration.thresholds.get(name)
                made[f"entropy-{name}"] = self.gate(replace(settings, threshold=threshold))
            else:
                _, averaged = drawn(self, make(), settings, n=size, draws=draws, pool=pooled)
                made[f"entropy-{name}"] = self.judged(averaged, decide=settings.decide)
        if names is not None and (unknown := [n for n in names if n.startswith("entropy-") and n not in made]):
            raise InputError(f"unknown rule {unknown[0]!r}", hint=f"entropy-METHOD with one of {', '.join(METHODS)}")
        if names is None or "recommended" in names:
            if recommended is not None:
                made["recommended"] = self.gate_of(recommended)
            elif pooled is None and (halves := self._halves()) is not None:
                made["recommended"] = self.judged(halves, decide="every")
        return made

    def _baselines(self) -> list[Rule]:
        steps = self.table.steps
        rules: list[Rule] = [FixedSteps(count) for count in range(1, steps)]
        typical = int(np.median(self.table.generated[:, 0]))
        rules += [AllSteps(), Oracle(self.decide), FixedBudget(2 * typical or 1), AnswerConvergence(2)]
        return rules + [make("") for make in (*RIVALS.values(), *(VOTES.values() if self._voted else ()))]

    def recommended(self, pool: Traces) -> GateSettings | None:
        """The recommended gate, fitted on other traces; None, and listed in `missing`, where they are too few."""
        try:
            return recommend(pool, seed=self.seed).settings
        except NotEnoughExamples as error:
            self.missing["recommended"] = str(error)
            return None

    def gate_of(self, settings: GateSettings) -> Judged:
        """A gate on any pooling of the recorded signal."""
        table = table_of(self.traces, settings.signal, prices=self.prices)
        return self.judged(outcomes(table, table.stops(settings)), decide=settings.decide)

    def _halves(self) -> Outcomes | None:
        """The recommended gate, fitted on each half of the problems and applied to the other half."""
        tables = self._candidates
        n = len(self.table)
        order = np.random.default_rng(self.seed).permutation(n)
        half = np.zeros(n, dtype=bool)
        half[order[: n // 2]] = True
        stops = np.zeros(n, dtype=np.int64)
        for fitted in (half, ~half):
            try:
                made = recommend_from([table.rows(fitted) for table in tables], shape=self.shape, seed=self.seed)
            except NotEnoughExamples as error:
                self.missing["recommended"] = str(error)
                return None
            chosen = next(table for table in tables if table.signal == made.settings.signal)
            stops[~fitted] = chosen.rows(~fitted).stops(made.settings)
        return outcomes(self.table, stops)
