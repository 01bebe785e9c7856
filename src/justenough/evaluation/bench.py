"""Replays rules on traces in a few passes; the traces need not fit into memory."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from justenough.calibration.calibration import DECIDER, Calibration
from justenough.calibration.thresholds import METHODS, Method
from justenough.errors import InputError, NotEnoughExamples
from justenough.evaluation.baselines import oracle_saving, stops_of
from justenough.evaluation.costs import Price
from justenough.evaluation.draws import Draws, calibration_draws
from justenough.evaluation.figures import Bools, Outcomes, charged, gate_outcomes, outcomes
from justenough.evaluation.recommend import allowed, candidates, recommend, recommend_from
from justenough.evaluation.table import Table, parts_of, table_of, tables_from
from justenough.evaluation.tuning import TUNED, Labelled, reads_in, reads_of, tuned
from justenough.gate import DECIDES, Decide, GateSettings
from justenough.rules.fitted import FITTED
from justenough.rules.live import LiveRule, open_live
from justenough.rules.looks import FirstPassage, Watch, looks_of, passage
from justenough.rules.rivals import GRIDS, LIVE, RIVALS, caveat, not_applicable
from justenough.rules.rules import (
    AllSteps,
    FixedBudget,
    FixedSteps,
    MissingField,
    Oracle,
    Rule,
    open_rule,
)
from justenough.rules.votes import VOTES, sampled
from justenough.signal.signal import Signal
from justenough.stats import Separation, separation
from justenough.stats.drawing import generator
from justenough.trace import Step, Trace, fingerprint_of, trace_digest
from justenough.trace.batches import Batch
from justenough.trace.building import Item, columns_under
from justenough.trace.files import Traces, first_of, items_of

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

    def through(self, traces: Iterable[Item]) -> Iterator[Item]:
        """The same traces; raises at the first one of another kind, or that the calibration is not for."""
        for item in traces:
            if isinstance(item, Batch):
                for trace in item.kinds():
                    self._check(trace)
                self.tasks.update(item.tasks)
                places, names = item.step_models
                self.models.update(names[place] or "" for place in np.unique(places).tolist())
                self.families.extend(map(sys.intern, item.families))
                self.ignored += int(item.any_step(ignored(item)).sum())
                self._digests.extend(item.digests())
            else:
                self._check(item)
                self.tasks.add(item.task)
                self.models.update(step.model or item.model for step in item.steps)
                self.families.append(sys.intern(item.family or ""))
                self.ignored += any(ignores_signal(step, item.signal) for step in item.steps)
                self._digests.append(trace_digest(item))
            yield item

    def _check(self, trace: Trace) -> None:
        first = self.first = self.first or trace
        if trace.model != first.model or trace.shape != first.shape:
            raise InputError(
                f"the traces mix {first.model} ({first.shape}) and {trace.model} ({trace.shape})",
                hint="evaluate each separately",
            )
        first.signal.require(trace.signal, what=f"the steps of {trace.id}", own="the other traces'")
        if (calibration := self._calibration) is not None:
            calibration.check(replace(trace, signal=trace.signal.pooled_as(calibration.signal)))

    @property
    def fingerprint(self) -> str:
        """`data_fingerprint` of the traces."""
        return fingerprint_of(self._digests)


def ignores_signal(step: Step, signal: Signal) -> bool:
    """Whether the step holds only a signal of another kind: `entropy` is not read under a stand-in's name."""
    entropy = step.entropy is not None or bool(step.entries)
    return entropy != (step.uncertainty is not None) and entropy != (signal.kind == "entropy")


def ignored(batch: Batch) -> Bools:
    """`ignores_signal` of each step of a batch."""
    entropy = ~np.isnan(batch.steps.reals("entropy")) | (batch.entries > 0)
    stand_in = ~np.isnan(batch.steps.reals("uncertainty"))
    without: Bools = (entropy != stand_in) & (entropy != (batch.signal.kind == "entropy"))
    return without


def _outcomes_of(table: Table, stopped: array[int]) -> Outcomes:
    """The outcomes of stops, each as step, tokens, right and unanswered; an elected answer may be of another step."""
    steps, tokens, right, unanswered = np.frombuffer(stopped, dtype=np.int64).reshape(-1, 4).T
    done = outcomes(table, steps - 1, tokens.astype(np.float64))
    return replace(done, correct=right.astype(np.float64), unanswered=unanswered > 0)


class Bench:
    """Traces, their table, and the outcomes of rules on them. The traces are read again on each pass."""

    def __init__(
        self,
        traces: Traces,
        signal: Signal,
        *,
        decide: Decide,
        seed: int,
        calibration: Calibration | None = None,
        prices: Mapping[str, Price] | None = None,
        pool: Traces | None = None,
        halves: bool = False,
        selection: str = "",
    ) -> None:
        """With `halves`, the candidates of the recommended gate are measured in the same pass.

        What the rules of the `selection` read is read in that pass too.
        """
        self.traces, self.prices, self.decide, self.seed = traces, prices, decide, seed
        self.calibration, self.pool = calibration, pool
        self.seen = Seen(calibration)
        first = self.first = first_of(traces)
        others = candidates(first.signal) if halves else []
        watch = Watch(reads_in(selection))
        watched = watch.through(self.seen.through(items_of(traces)))
        measured = columns_under(watched, list(dict.fromkeys((signal, *others))))
        self.looks = watch.looks(measured[0])
        tables = tables_from(measured, prices=prices)
        under = {table.signal: table for table in tables}
        self.table, self._candidates = tables[0], allowed([under[other] for other in others])
        self._pooled = None if pool is None else table_of(items_of(pool), signal)
        self.settings = GateSettings(signal=signal, shape=first.shape, decide=decide, max_steps=self.table.steps)
        """The gate without a threshold."""
        if calibration is not None:
            whole = replace(GateSettings.of(calibration), decide=decide)
            self.settings = replace(whole, threshold=None, decider=None, outlook=None, give_up=None)
        self.oracle_savings = {at: oracle_saving(self.table, at) for at in DECIDES}
        """Savings of the oracles that may decide after step 1, or after every step."""
        self._final = self.table.correct[:, -1].astype(np.float64)
        self.missing: dict[str, str] = {}
        """Rule → what it lacks on these traces."""
        self.caveats: dict[str, str] = {}
        """Rule → what differs from its authors' rule on these traces."""

    def separation(self) -> Separation:
        """How well the signal of step 1 separates right from wrong."""
        usable = self.table.rows(np.isfinite(self.table.bits[:, 0]))
        return separation(usable.bits[:, 0], usable.correct[:, 0], groups=usable.groups, problems=usable.problems)

    def compared(self, done: Outcomes, decide: Decide) -> Outcomes:
        """The outcomes with the saving of the oracle that may decide at the same places."""
        # The last answers are the same for all rules, so they share one array.
        return replace(done, oracle_saving=self.oracle_savings[decide], final=self._final)

    def gate(self, settings: GateSettings) -> Outcomes:
        """A gate on the table's signal; a test checks that it decides like `Gate`."""
        return self.compared(gate_outcomes(self.table, settings), settings.decide)

    def drawn(self, method: Method, *, n: int, draws: int) -> tuple[Draws, Outcomes]:
        """Figures over calibration draws, and the mean outcomes."""
        spread, averaged = calibration_draws(
            self.table, method, self.settings, n=n, draws=draws, seed=self.seed, pool=self._pooled
        )
        return spread, self.compared(averaged, self.decide)

    def replayed(self, rules: Sequence[Rule], tuned: Sequence[str] = ()) -> dict[str, Outcomes]:
        """Replay all rules; a rule that needs fields which the traces lack is listed in `missing`.

        The traces are read again if they were not watched for what the rules and the `tuned` ones need, and for rules
        that are no first passages.
        """
        passages = {rule.name: rule for rule in rules if isinstance(rule, FirstPassage)}
        fixed = {rule.name: at for rule in rules if (at := stops_of(rule, self.table)) is not None}
        others = {rule.name: rule for rule in rules if rule.name not in passages and rule.name not in fixed}
        missing = {
            name: reason for name, rule in passages.items() if (reason := not_applicable(rule, self.table.steps))
        }
        recorded = {name: array("q") for name in others}
        # Most rules that lack something lack it at every problem.
        for traces in ([self.first], self.traces):
            stops = {name: array("q") for name in others if name not in missing}
            for trace in traces if stops else ():
                for name in [name for name in stops if name not in missing]:
                    try:
                        stop = others[name].replay(trace)
                    except MissingField as error:
                        missing[name] = error.field
                    else:
                        stops[name].extend((stop.step, stop.tokens, stop.correct, stop.unanswered))
            recorded = stops
        reads = [read for rule in passages.values() for read in rule.reads]
        reads += [read for head in tuned for read in reads_of(head)]
        if not set(reads) <= set(self.looks.values):
            self.looks = looks_of(items_of(self.traces), dict.fromkeys(reads))
        done: dict[str, Outcomes] = {}
        for name, rule in passages.items():
            if name not in missing:
                try:
                    at, tokens = passage(rule, self.looks)
                except MissingField as error:
                    missing[name] = error.field
                else:
                    done[name] = outcomes(self.table, at, tokens.astype(np.float64))
        done |= {name: outcomes(self.table, at) for name, at in fixed.items()}
        done |= {name: _outcomes_of(self.table, stop) for name, stop in recorded.items() if name not in missing}
        complete = [rule for rule in rules if rule.name not in missing]
        self.missing |= {rule.name: missing[rule.name] for rule in rules if rule.name in missing}
        plain = {rule.name: rule.rule if isinstance(rule, LiveRule) else rule for rule in complete}
        self.caveats |= {name: note for name, rule in plain.items() if (note := caveat(rule, self.first))}
        # All rules except the gate and its oracle may stop anywhere.
        return {
            rule.name: self.compared(done[rule.name], rule.decide if isinstance(rule, Oracle) else "every")
            for rule in complete
        }

    def rules(
        self, selection: str, *, size: int, draws: int, margin: float = 0.01, recommended: GateSettings | None = None
    ) -> dict[str, Outcomes]:
        """The outcomes of all rules, or of the named ones. `margin` is for rules that labels tune (see `tuned`)."""
        every = selection == "all"
        names = [name for name in map(str.strip, selection.split(",")) if name]
        gates = {f"entropy-{name}": name for name in METHODS}
        if (calibration := self.calibration) is not None and calibration.decider is not None:
            gates[DECIDER] = DECIDER
        if unknown := [name for name in names if name.startswith("entropy-") and name not in gates]:
            raise InputError(f"unknown rule {unknown[0]!r}", hint=f"entropy-METHOD with one of {', '.join(METHODS)}")
        if every:
            names, rules = [*LIVE, *gates, "recommended"], self._baselines()
        else:
            others = [name for name in names if name not in (*LIVE, *gates, "recommended") and not name.endswith(TUNED)]
            known = {**RIVALS, **VOTES}
            rules = [
                open_live(name) if "@" in name else open_rule(name, decide=self.decide, others=known) for name in others
            ]
        heads = [head for head in (*GRIDS, *FITTED) if every or head + TUNED in names]
        chosen = self.replayed(rules, heads) | self._tuned(heads, size=size, draws=draws, margin=margin)
        self.missing |= {name: needed for name, needed in LIVE.items() if name in names}
        for gate in [gate for gate in gates if gate in names]:
            if calibration is not None:
                fitted = replace(self.settings, threshold=calibration.thresholds.get(gates[gate]))
                whole = replace(GateSettings.of(calibration), decide=self.decide)
                chosen[gate] = self.gate(whole if gate == DECIDER else fitted)
                continue
            spread, averaged = self.drawn(METHODS[gates[gate]](), n=size, draws=draws)
            if "no_signal" in spread.reasons:
                self.missing[gate] = "a usable signal at step 1 (see `justenough diagnose`)"
            else:
                chosen[gate] = averaged
        if "recommended" in names:
            try:
                chosen["recommended"] = self._recommended(recommended)
            except NotEnoughExamples as error:
                self.missing["recommended"] = str(error)
        return chosen

    def _tuned(self, heads: Sequence[str], *, size: int, draws: int, margin: float) -> dict[str, Outcomes]:
        """Published rules whose settings labels choose."""
        chosen: dict[str, Outcomes] = {}
        labels = None
        if self.pool is not None and self._pooled is not None and heads:
            labels = Labelled(
                self._pooled, looks_of(items_of(self.pool), [read for head in heads for read in reads_of(head)])
            )
        for head in heads:
            try:
                decided = Labelled(self.table, self.looks)
                done = tuned(head, decided, labels, n=size, draws=draws, seed=self.seed, margin=margin)
            except MissingField as error:
                done = error.field
            if isinstance(done, Outcomes):
                chosen[head + TUNED] = self.compared(done, "every")
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
        votes = VOTES.values() if all(sampled(step) for step in self.first.steps) else ()
        return rules + [make("") for make in (*RIVALS.values(), *votes)]

    def _recommended(self, settings: GateSettings | None) -> Outcomes:
        """The recommended gate: as given, or fitted on the pool, or on each half of the problems for the other half."""
        if settings is None and self.pool is None:
            return self._halves()
        if settings is None:
            settings = recommend(self.pool or [], seed=self.seed).settings
        table = table_of(items_of(self.traces), settings.signal, prices=self.prices)
        return self.compared(gate_outcomes(table, settings), settings.decide)

    def _halves(self) -> Outcomes:
        tables, n = self._candidates, len(self.table)
        half = np.zeros(n, dtype=bool)
        half[generator(self.seed).permutation(n)[: n // 2]] = True
        stops, probed = np.zeros((2, n), dtype=np.int64)
        for fitted in (half, ~half):
            settings = recommend_from(parts_of(tables, fitted), shape=self.first.shape, seed=self.seed).settings
            rest = next(table for table in tables if table.signal == settings.signal).rows(~fitted)
            stops[~fitted] = rest.stops(settings)
            probed[~fitted] = rest.probed(stops[~fitted], settings)
        return self.compared(charged(self.table, stops, probed), "every")
