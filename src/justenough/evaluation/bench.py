"""Replays rules on traces in a few passes; the traces need not fit into memory."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from justenough.calibration.calibration import Calibration
from justenough.calibration.thresholds import METHODS, Method
from justenough.errors import InputError, NotEnoughExamples
from justenough.evaluation.costs import Price
from justenough.evaluation.draws import Draws, calibration_draws, no_draws
from justenough.evaluation.figures import Figures, Judged, Outcomes, charged, figures_of, gate_outcomes, outcomes
from justenough.evaluation.recommend import allowed, candidates, recommend, recommend_from
from justenough.evaluation.table import Table, table_of, tables_of
from justenough.evaluation.tuning import TUNED, Labelled, reads_of, tuned
from justenough.gate import DECIDES, Decide, GateSettings
from justenough.rules.fitted import FITTED
from justenough.rules.looks import FirstPassage, looks_of, passage
from justenough.rules.rivals import GRIDS, LIVE, RIVALS, caveat, not_applicable
from justenough.rules.rules import (
    AllSteps,
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
from justenough.trace import Step, Trace, fingerprint_of, trace_digest
from justenough.trace.files import Traces, first_of

FEW: Final = 5
"""Most rules with a fixed number of steps that are shown."""


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
        self.ignored = 0
        """Problems with a signal that the recorded `signal.kind` does not read."""
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
            self.ignored += any(ignores_signal(step, trace.signal) for step in trace.steps)
            self._digests.append(trace_digest(trace))
            yield trace

    @property
    def fingerprint(self) -> str:
        """`data_fingerprint` of the traces."""
        return fingerprint_of(self._digests)


def ignores_signal(step: Step, signal: Signal) -> bool:
    """Whether the step holds only a signal of another kind: `entropy` is not read under a stand-in's name."""
    entropy = step.entropy is not None or bool(step.entries)
    return entropy != (step.uncertainty is not None) and entropy != (signal.kind == "entropy")


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
        """The outcomes; an elected answer may differ from that of the step at which the vote ends."""
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
    """Figures over calibration draws, with fewer examples in each draw if there are not enough."""
    source = bench.table if pool is None else pool
    usable = int(np.isfinite(source.bits[:, 0]).sum())
    # With few traces, each draw takes half of them.
    size = min(n, usable if pool is not None else usable // 2)
    if size < 1:
        reason = "too_few_right" if usable else "no_signal"
        return no_draws(bench.table, method, settings, draws=draws, reason=reason)
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
        first = first_of(traces)
        self.first = first
        others = candidates(first.signal) if halves else []
        tables = tables_of(self.seen.through(traces), list(dict.fromkeys((signal, *others))), prices=prices)
        under = {table.signal: table for table in tables}
        self.table, self._candidates = tables[0], allowed([under[other] for other in others])
        self.decide = decide
        self.margin = margin
        self.seed = seed
        self.resamples = resamples
        self.missing: dict[str, str] = {}
        self.shape = first.shape
        self._voted = all(sampled(step) for step in first.steps)
        self.settings = GateSettings(signal=signal, shape=self.shape, decide=decide, max_steps=max(self.table.steps, 1))
        self.oracle_savings = {at: _oracle_saving(self.table, at) for at in DECIDES}
        self.caveats: dict[str, str] = {}
        """Rule → what differs from its authors' rule on these traces."""

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

    def replayed(self, rules: Sequence[Rule], tuned: Sequence[str] = ()) -> dict[str, Judged]:
        """Replay all rules in one pass; a rule that needs fields which the traces lack is listed in `missing`.

        What the `tuned` rules need is read in the same pass.
        """
        passages = {rule.name: rule for rule in rules if isinstance(rule, FirstPassage)}
        others = {rule.name: rule for rule in rules if rule.name not in passages}
        stops = {name: _Stops() for name in others}
        reasons = {name: not_applicable(rule, self.table.steps) for name, rule in passages.items()}
        missing = {name: reason for name, reason in reasons.items() if reason is not None}

        def replaying() -> Iterator[Trace]:
            for trace in self.traces:
                for name, rule in others.items():
                    if name not in missing:
                        try:
                            stops[name].add(rule.replay(trace))
                        except MissingField as error:
                            missing[name] = error.field
                yield trace

        reads = [read for rule in passages.values() for read in rule.reads]
        self.looks = looks_of(replaying(), [*reads, *(read for head in tuned for read in reads_of(head))])
        done: dict[str, Outcomes] = {}
        for name, rule in passages.items():
            if name not in missing:
                try:
                    at, tokens = passage(rule, self.looks)
                except MissingField as error:
                    missing[name] = error.field
                else:
                    done[name] = outcomes(self.table, at, tokens.astype(np.float64))
        done |= {name: stop.outcomes(self.table) for name, stop in stops.items() if name not in missing}
        self.missing |= {rule.name: missing[rule.name] for rule in rules if rule.name in missing}
        notes = {rule.name: caveat(rule, self.first) for rule in rules if rule.name not in missing}
        self.caveats |= {name: note for name, note in notes.items() if note is not None}
        # All rules except the gate and its oracle may stop anywhere.
        return {
            rule.name: self.judged(done[rule.name], decide=rule.decide if isinstance(rule, Oracle) else "every")
            for rule in rules
            if rule.name not in missing
        }

    def gate(self, settings: GateSettings) -> Judged:
        """A gate on the table's signal; a test checks that it decides like `Gate`."""
        return self.judged(gate_outcomes(self.table, settings), decide=settings.decide)

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
        pool: Traces | None = None,
    ) -> dict[str, Judged]:
        """The outcomes of all rules, or of the named ones."""
        names = None if wanted == "all" else [name.strip() for name in wanted.split(",") if name.strip()]
        heads = [head for head in (*GRIDS, *FITTED) if names is None or head + TUNED in names]
        chosen = self.replayed(
            self._baselines()
            if names is None
            else [
                open_rule(name, decide=self.decide, others={**RIVALS, **VOTES})
                for name in names
                if name not in LIVE and not name.startswith(("entropy-", "recommended")) and not name.endswith(TUNED)
            ],
            heads,
        )
        chosen |= self._tuned(heads, pool, pooled, size=size, draws=draws)
        self.missing |= {name: needed for name, needed in LIVE.items() if names is None or name in names}
        gates = {f"entropy-{name}": name for name in METHODS}
        if names is not None and (unknown := [n for n in names if n.startswith("entropy-") and n not in gates]):
            raise InputError(f"unknown rule {unknown[0]!r}", hint=f"entropy-METHOD with one of {', '.join(METHODS)}")
        for gate, method in gates.items():
            if names is not None and gate not in names:
                continue
            if calibration is not None:
                chosen[gate] = self.gate(replace(settings, threshold=calibration.thresholds.get(method)))
                continue
            spread, averaged = drawn(self, METHODS[method](), settings, n=size, draws=draws, pool=pooled)
            if "no_signal" in spread.reasons:
                self.missing[gate] = "a usable signal at step 1 (see `justenough diagnose`)"
            else:
                chosen[gate] = self.judged(averaged, decide=settings.decide)
        if names is None or "recommended" in names:
            if recommended is not None:
                chosen["recommended"] = self.gate_of(recommended)
            elif pooled is None and (halves := self._halves()) is not None:
                chosen["recommended"] = self.judged(halves, decide="every")
        return chosen

    def _tuned(
        self, heads: Sequence[str], pool: Traces | None, pooled: Table | None, *, size: int, draws: int
    ) -> dict[str, Judged]:
        """Published rules whose settings labels choose."""
        chosen: dict[str, Judged] = {}
        labels = None
        if pool is not None and pooled is not None and heads:
            labels = Labelled(pooled, looks_of(pool, [read for head in heads for read in reads_of(head)]))
        for head in heads:
            decided = Labelled(self.table, self.looks)
            try:
                done = tuned(head, decided, labels, n=size, draws=draws, seed=self.seed, margin=self.margin)
            except MissingField as error:
                done = error.field
            if isinstance(done, Outcomes):
                chosen[head + TUNED] = self.judged(done, decide="every")
            elif head not in RIVALS or self.missing.get(RIVALS[head]("").name) != done:
                # What the rule lacks at its authors' settings too is listed once.
                self.missing[head + TUNED] = done
        return chosen

    def _baselines(self) -> list[Rule]:
        # Of many numbers of steps only a few are shown, in equal ratios.
        counts = np.arange(1, self.table.steps)
        if len(counts) > FEW:
            counts = np.unique(np.geomspace(1, len(counts), FEW).round().astype(np.int64))
        rules: list[Rule] = [FixedSteps(count) for count in counts.tolist()]
        typical = int(np.median(self.table.generated[:, 0]))
        rules += [AllSteps(), Oracle(self.decide), FixedBudget(2 * typical or 1)]
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
        return self.judged(gate_outcomes(table, settings), decide=settings.decide)

    def _halves(self) -> Outcomes | None:
        """The recommended gate, fitted on each half of the problems and applied to the other half."""
        tables, n = self._candidates, len(self.table)
        half = np.zeros(n, dtype=bool)
        half[np.random.default_rng(self.seed).permutation(n)[: n // 2]] = True
        stops, probed = np.zeros((2, n), dtype=np.int64)
        for fitted in (half, ~half):
            try:
                settings = recommend_from(
                    [table.rows(fitted) for table in tables], shape=self.shape, seed=self.seed
                ).settings
            except NotEnoughExamples as error:
                self.missing["recommended"] = str(error)
                return None
            rest = next(table for table in tables if table.signal == settings.signal).rows(~fitted)
            stops[~fitted] = rest.stops(settings)
            probed[~fitted] = rest.probed(stops[~fitted], settings)
        return charged(self.table, stops, probed)


def _oracle_saving(table: Table, decide: Decide) -> float:
    """The saving of the oracle: at each problem the cheapest stop that costs nothing (see `Oracle`)."""
    harmless = table.correct | ~table.correct[:, -1:]
    spent, full = np.where(harmless, table.spent, np.inf), float(table.spent[:, -1].sum())
    places = spent if decide == "every" else spent[:, [0, -1]]
    return 1 - float(places.min(axis=1).sum()) / full if full > 0 else 0.0
