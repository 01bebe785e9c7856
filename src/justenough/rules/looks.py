"""What rules see at each checkpoint, as columns, and the one form of most rules: a first passage on them.

A rule says at which checkpoints its condition holds. It stops at the first of them, and pays for the probes that it has
taken before. No rule stops at a checkpoint without an answer if it reads answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar, Final, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from justenough.rules.elicited import (
    LACKING,
    PROBES,
    Answers,
    Elicited,
    answer_value,
    answers_of,
    elicited,
    elicited_answers,
)
from justenough.rules.quantities import Quantity
from justenough.rules.rules import MissingField, Stopped, stopped_at
from justenough.trace import Trace
from justenough.trace.batches import Batch
from justenough.trace.building import Item, columns_of
from justenough.trace.columns import Columns

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Looks:
    """n problems with up to K checkpoints; each array has the shape (n, K) and is of no use after a problem's end."""

    lengths: Ints
    """(n,): checkpoints of each problem."""
    values: dict[Quantity, Floats]
    answers: Ints
    """The same code for equal answers of one problem; -1 where there is no answer, -2 where it was not elicited."""
    seen: Ints
    """Tokens of the thought up to the checkpoint."""
    spent: Ints
    """Tokens of a run that stops there and has taken no other probe."""
    probes: Ints
    """Tokens of the stream's probe; 0 where there is none, and in completions, whose probes are always taken."""
    reasons: dict[int, str]
    """Row → what must be recorded for any answer to be read there."""

    @cached_property
    def recorded(self) -> Bools:
        """Where there is a checkpoint."""
        return np.arange(self.answers.shape[1]) < self.lengths[:, None]

    @cached_property
    def before_last(self) -> Bools:
        """Where a stop is early; nothing is read off the last answer."""
        return np.arange(self.answers.shape[1]) < self.lengths[:, None] - 1

    @property
    def answered(self) -> Bools:
        """Where there is an answer."""
        return self.answers >= 0

    @cached_property
    def agreeing(self) -> Ints:
        """How many answers in a row, up to this one, are equal."""
        return agreeing(self.answers)

    @cached_property
    def probed(self) -> Ints:
        """Tokens of the probes before the checkpoint."""
        return self._before(self.probes)

    def probed_up_to(self, most: int | None) -> Ints:
        """As `probed`, if at most so many tokens of each probe are taken."""
        return self.probed if most is None else self._before(np.minimum(self.probes, most))

    def _before(self, probes: Ints) -> Ints:
        return np.cumsum(probes, axis=1) - probes

    @cached_property
    def lacking(self) -> frozenset[Quantity | None]:
        """What some problem lacks at some checkpoint before its last one; None stands for probes."""
        lacks = [quantity for quantity, values in self.values.items() if (values == LACKING)[self.before_last].any()]
        return frozenset([*lacks, None] if (self.answers == _UNPROBED)[self.before_last].any() else lacks)

    @cached_property
    def _results(self) -> dict[object, object]:
        return {}

    def once(self, compute: Callable[[Looks], T]) -> T:
        """The result of a function, computed once: rules with other settings need it too."""
        if compute not in self._results:
            self._results[compute] = compute(self)
        return cast("T", self._results[compute])

    def rows(self, index: Ints) -> Looks:
        """The problems at `index`, in that order."""
        return Looks(
            lengths=self.lengths[index],
            values={quantity: values[index] for quantity, values in self.values.items()},
            answers=self.answers[index],
            seen=self.seen[index],
            spent=self.spent[index],
            probes=self.probes[index],
            reasons={new: self.reasons[old] for new, old in enumerate(index.tolist()) if old in self.reasons},
        )


class FirstPassage(ABC):
    """A rule that stops at the first checkpoint at which its condition holds."""

    __slots__ = ()
    head: ClassVar[str]
    """The name without settings."""
    knobs: ClassVar[int] = 1
    """Number of its fields, the first ones, that its name always shows; 0 if it is fitted and has no settings."""
    unbounded: ClassVar[Mapping[str, float | None]] = MappingProxyType({})
    """Field → the value without a bound, which its name shows as `none`."""
    chances: ClassVar[tuple[str, ...]] = ()
    """Fields that are probabilities."""
    reads: ClassVar[tuple[Quantity, ...]] = ()
    """The quantities that it needs."""
    most: ClassVar[int | None] = None
    """Tokens that the rule takes of a probe at which it goes on; None: all."""
    again: ClassVar[bool] = False
    """Whether the final answer is generated again: the tokens of the probe at the stop then count twice."""

    @property
    def name(self) -> str:
        """The name in tables, by which the same rule can be opened: `deer:0.95`.

        A setting after the first ones is shown if it, or a later one, is not the authors'.
        """
        values, defaults = self.settings(), type(self)().settings() if self.knobs else {}
        own = [at for at, name in enumerate(defaults, 1) if values[name] != defaults[name]]
        shown = list(values.items())[: max([self.knobs, *own])]
        free = self.unbounded
        texts = ["none" if name in free and value == free[name] else _shown(value) for name, value in shown]
        return ":".join((self.head, *texts))

    def settings(self) -> dict[str, float]:
        """The settings that its name may show."""
        # The names of a dataclass's fields.
        names: tuple[str, ...] = getattr(self, "__match_args__", ()) if self.knobs else ()
        return {name: getattr(self, name) for name in names}

    @property
    def earliest(self) -> int:
        """The first step at which it may stop."""
        return 1

    @property
    def elicits(self) -> bool:
        """Whether it reads elicited answers, for which a stream must be probed."""
        return self.most != 0

    @abstractmethod
    def holds(self, looks: Looks) -> Bools:
        """Where its condition holds, (n, K); a checkpoint depends on no later one."""

    def caveat(self, trace: Trace) -> str | None:
        """What differs from the authors' rule on such traces; None if nothing does."""
        return None

    def replay(self, trace: Trace) -> Stopped:
        """Where it stops; raises `MissingField`."""
        (at,), (tokens,) = passage(self, looks_of([trace], self.reads))
        stop = stopped_at(trace, int(at) + 1)
        return stop._replace(tokens=int(tokens))


def _shown(value: float) -> str:
    """A number as short as it can be read back."""
    return short if float(short := f"{value:g}") == value else repr(value)


def passage(rule: FirstPassage, looks: Looks) -> tuple[Ints, Ints]:
    """The column of each problem's stop (from 0) and its tokens, each (n,).

    Raises `MissingField` if a problem lacks what the rule reads at a checkpoint up to its stop.
    """
    rows, last = np.arange(len(looks.lengths)), looks.lengths - 1
    stops = first_stops(rule.holds(looks), looks)
    if not looks.lacking.isdisjoint((None, *rule.reads)):
        require(rule, looks, looks.before_last & (np.arange(looks.answers.shape[1]) <= stops[:, None]))
    tokens = looks.spent[rows, stops]
    if rule.most != 0:
        tokens += looks.probed_up_to(rule.most)[rows, stops]
    if rule.again:
        tokens += np.where(stops < last, looks.probes[rows, stops], 0)
    return stops, tokens


def first_stops(holds: Bools, looks: Looks) -> Ints:
    """The column of each problem's first checkpoint at which a condition `holds` (n, K), or of its last one."""
    stops = looks.lengths - 1
    for column in reversed(range(holds.shape[1] - 1)):
        stops[holds[:, column] & looks.before_last[:, column]] = column
    return stops


def require(rule: FirstPassage | type[FirstPassage], looks: Looks, where: Bools) -> None:
    """Raise `MissingField` if a problem lacks what the rule reads at a checkpoint `where` (n, K) it looks."""
    lacking = [(quantity.lack, quantity.elicits, looks.values[quantity] == LACKING) for quantity in rule.reads]
    if rule.most != 0:
        lacking.insert(0, (PROBES, False, looks.answers == _UNPROBED))
    for lack, elicits, unread in lacking:
        if len(bad := np.flatnonzero((unread & where).any(axis=1))):
            name = rule.name if isinstance(rule, FirstPassage) else rule.head
            raise MissingField(name, looks.reasons.get(int(bad[0]), lack) if elicits else lack)


def looks_of(traces: Iterable[Batch | Trace], reads: Iterable[Quantity]) -> Looks:
    """The quantities of traces, which are read once and not kept. Raises `InputError` if there is no trace."""
    watch = Watch(reads)
    # The signal is of no interest here, so only first steps are measured.
    return watch.looks(columns_of(watch.through(traces), measure="first"))


_UNPROBED: Final = -2


class Watch:
    """Reads the quantities of traces while these are turned into columns."""

    def __init__(self, reads: Iterable[Quantity]) -> None:
        self._values = {quantity: array("d") for quantity in reads}
        self._answers = array("q")
        self._reasons: dict[int, str] = {}
        self._lost: set[Quantity] = set()
        """Lacking at a first checkpoint, at which every rule looks: no rule that reads them can be replayed."""

    def looks(self, columns: Columns) -> Looks:
        """The quantities that were read, with the columns of the same traces."""
        probes = np.where(columns.streaming[columns.problem_of], np.maximum(columns.probe_tokens, 0), 0)
        return Looks(
            lengths=columns.lengths,
            values={quantity: columns.padded(np.frombuffer(values)) for quantity, values in self._values.items()},
            answers=columns.padded(np.frombuffer(self._answers, dtype=np.int64)),
            seen=columns.summed(columns.tokens),
            spent=columns.spent(),
            probes=columns.padded(probes),
            reasons=self._reasons,
        )

    def through(self, traces: Iterable[Item]) -> Iterator[Item]:
        """The same traces."""
        row = 0
        for item in traces:
            if isinstance(item, Trace):
                self._read(row, item)
                row += 1
            else:
                self._read_batch(row, item)
                row += len(item)
            yield item

    def _read_batch(self, row: int, batch: Batch) -> None:
        """Like `_read` of each trace."""
        left = [quantity for quantity in self._values if quantity not in self._lost]
        if (
            set(batch.shapes) != {"streaming"}
            or any(quantity.flat is None for quantity in left)
            or not batch.has_bits(batch.signal)
        ):
            for number, trace in enumerate(batch.traces()):
                self._read(row + number, trace)
            return
        codes, (places, texts) = dict[object, int](), batch.probes.coded("answer")
        coded = [-1 if text is None else codes.setdefault(answer_value(text), len(codes)) for text in texts]
        self._answers.frombytes(np.where(batch.probes.there, np.array(coded)[places], _UNPROBED).tobytes())
        first, last = batch.offsets[:-1], batch.offsets[1:] - 1
        unknown = ~batch.probes.there
        unknown[last] = False
        for place in np.flatnonzero(batch.any_step(unknown)).tolist():
            self._reasons[row + place] = PROBES
        answers = elicited_answers(batch)
        for quantity, values in self._values.items():
            read = np.full(batch.steps.size, LACKING)
            if quantity in left and quantity.flat is not None:
                read = quantity.flat(batch, answers).copy()
                if quantity.elicits:
                    read[unknown] = LACKING
                if len(lost := last[(first < last) & (read[first] == LACKING)]):
                    self._lost.add(quantity)
                    read[lost[0] + 1 :] = LACKING
            values.frombytes(read.tobytes())

    def _read(self, row: int, trace: Trace) -> None:
        codes: dict[object, int] = {}
        for step in trace.steps:
            source = step.probe if trace.shape == "streaming" else step
            if source is None or source.answer is None:
                self._answers.append(_UNPROBED if source is None else -1)
            else:
                self._answers.append(codes.setdefault(answer_value(source.answer), len(codes)))
        left = [quantity for quantity in self._values if quantity not in self._lost]
        answers, unknown = self._elicited(row, trace, any(read.elicits for read in left))
        for quantity, values in self._values.items():
            read = np.full(len(trace.steps), LACKING)
            if quantity in left:
                read = quantity.read(trace, answers)
                if quantity.elicits:
                    read = np.where(unknown, LACKING, read)
                if read[0] == LACKING and len(read) > 1:
                    self._lost.add(quantity)
            values.frombytes(read.tobytes())

    def _elicited(self, row: int, trace: Trace, needed: bool) -> tuple[Answers, list[bool]]:
        """The answer of each step, and whether it is unknown if there is one. No rule reads the last step's."""
        answers: list[Elicited | None] = [None] * len(trace.steps)
        unknown = [False] * len(trace.steps)
        for place in range(len(trace.steps) - 1 if needed else 0):
            try:
                answers[place] = elicited(trace, place + 1, rule="")
            except MissingField as error:
                self._reasons.setdefault(row, error.field)
                unknown[place] = True
        return answers_of(answers), unknown


def in_a_row(holds: Bools) -> Ints:
    """How many checkpoints in a row, up to this one, a condition has held, (n, K)."""
    counted = np.cumsum(holds, axis=1)
    before: Ints = np.maximum.accumulate(np.where(holds, 0, counted), axis=1)
    return counted - before


def agreeing(codes: Ints) -> Ints:
    """How many answers in a row, up to this one, are equal, (n, K); 0 where there is none."""
    same = np.zeros_like(codes, dtype=np.bool_)
    same[:, 1:] = codes[:, 1:] == codes[:, :-1]
    return np.where(codes >= 0, in_a_row(same & (codes >= 0)) + 1, 0)
