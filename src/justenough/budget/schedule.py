"""Decides whose turn is next: a policy under a ledger, the same for live runs and for replay.

    schedule = Schedule(len(problems), ledger, policy="greedy", limits=[512] * 4, expectations=[expectation] * n)
    while (turn := schedule.next()) is not None:
        step = run(problems[turn.problem], max_tokens=turn.max_tokens)
        schedule.done(turn, tokens=step.tokens, bits=step.usable_bits(signal))

Several turns may be under way at the same time. `next` is None if no turn can be given now; `finished` tells whether
there will be another one. A step reserves its token limit. If less is left, the step gets that, provided that its
expected cost fits, and is cut there.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np

from justenough.budget.curves import Floats
from justenough.budget.expectation import Expectation, Outlook
from justenough.budget.ledger import Ledger, Reservation
from justenough.budget.policies import NEVER, Policy, Score, View, policy_named, served, tie_order
from justenough.errors import BudgetError

Form = Literal["batch", "online"]

FORMS: Final[tuple[Form, ...]] = ("batch", "online")


class Turn(NamedTuple):
    """One step that may be run now."""

    problem: int
    step: int
    """1-based."""
    reservation: Reservation
    max_tokens: int
    """The step's limit: it is cut here."""


class Truth(NamedTuple):
    """What only a replay knows, for the oracle."""

    correct: Floats
    """Whether each step is right, (n, K), 0 or 1."""
    cost: Floats
    """The true cost of each step, (n, K)."""


class Competition(NamedTuple):
    """What decides about further steps when all first steps are done."""

    score: Score
    ranks: list[int]
    """Among equal scores, lower first."""
    cost: Floats
    """Expected cost of each step, (n, K)."""


@dataclass(frozen=True, slots=True)
class Price:
    """The price of a step for problems that arrive one at a time: the score at which the budget would run out.

    The policy serves a sample of other problems, and the cost per problem is summed up to each step.
    """

    scores: Floats
    """Never rising, (m,)."""
    spent: Floats
    """Cost of all steps served so far over the number of problems, (m,)."""

    @classmethod
    def of(cls, policy: Policy, view: View) -> Price:
        """Serve every step of a sample in order of score."""
        n, steps = view.cost.shape
        order = served(policy.score(view), problems=n, steps=steps, ranks=range(n))
        costs = [float(view.cost[step.problem, step.done]) for step in order]
        return cls(np.array([-step.negative for step in order]), np.cumsum(np.array(costs)) / n)

    def at(self, pace: float) -> float:
        """The lowest score that is served if each problem may spend `pace` beyond its first step."""
        if not len(self.scores):
            return NEVER
        index = int(np.searchsorted(self.spent, pace)) if pace > 0 else 0
        return float(self.scores[index]) if index < len(self.scores) else NEVER


class Schedule:
    """Gives out turns. It is not safe for several threads; the ledger is."""

    def __init__(
        self,
        problems: int,
        ledger: Ledger,
        *,
        policy: str | Policy,
        limits: Sequence[int],
        expectations: Sequence[Expectation] | None = None,
        form: Form = "batch",
        seed: int = 0,
        keys: Sequence[str] | None = None,
        truth: Truth | None = None,
    ) -> None:
        """`limits` are the token limits of steps 1 … K, `expectations` one for each problem, `keys` their names.

        Raises `BudgetError` if the budget cannot be spent in this way.
        """
        self.policy = policy_named(policy)
        self.limits = tuple(limits)
        self.form: Form = form
        self.ledger = ledger
        self._n = problems
        self._expectations = expectations
        self._seed = seed
        self._keys = keys or [str(number) for number in range(problems)]
        self._truth = truth
        self._check()
        self._bits: list[list[float]] = [[] for _ in range(problems)]
        self._more = [True] * problems
        self._under_way: set[int] = set()
        self._waiting = list(range(problems - 1, -1, -1))
        self._heap: list[tuple[float, int, int]] | None = None
        self._competition: Competition | None = None
        self._price: Price | None = None
        self._current: int | None = None
        self._outlook = Outlook(expectations=expectations, limits=self.limits, unit=ledger.unit)
        self._first_cost, self._first_spread = self._outlook.first()

    def _check(self) -> None:
        steps, policy, expectations = len(self.limits), self.policy, self._expectations
        if self._n < 1 or not steps or min(self.limits) < 1 or len(self._keys) != self._n:
            raise BudgetError(
                f"{self._n} problems, {len(self._keys)} keys, token limits {self.limits}", hint="at least one of each"
            )
        if self.form not in FORMS:
            raise BudgetError(f"unknown form {self.form!r}", hint=f"one of {', '.join(FORMS)}")
        if self.form == "online" and not policy.online:
            raise BudgetError(f"{policy.name} needs all problems at once", hint="take the batch form")
        if expectations is None:
            if policy.expects or self.form == "online":
                what = policy.name if policy.expects else "the online form"
                raise BudgetError(f"{what} needs an expectation", hint="fit an Expectation on other problems")
        elif len(expectations) != self._n or any(expectation.max_steps < steps for expectation in expectations):
            raise BudgetError(
                f"{len(expectations)} expectations for {self._n} problems of {steps} steps", hint="one for each"
            )
        elif self.form == "online" and not all(expectation.sample for expectation in expectations):
            raise BudgetError("the expectation holds no entropies of other problems", hint="fit it on traces")

    def resume(self, problem: int, bits: Sequence[float | None], *, more: bool = True) -> None:
        """Continue a problem whose first steps were run and paid before. Call this before the first `next`."""
        self._bits[problem] = [math.nan if value is None else value for value in bits]
        self._more[problem] = more
        if bits and problem in self._waiting:
            self._waiting.remove(problem)

    @property
    def steps(self) -> tuple[int, ...]:
        """Finished steps of each problem."""
        return tuple(len(bits) for bits in self._bits)

    @property
    def finished(self) -> bool:
        """Whether there will be no further turn."""
        return not self._under_way and not self._waiting and self._current is None and self._heap == []

    def next(self) -> Turn | None:
        """The next turn, with its reservation; None if there is none now."""
        return self._next_online() if self.form == "online" else self._next_batch()

    def done(self, turn: Turn, *, tokens: int, bits: float | None, more: bool = True) -> None:
        """Commit a turn: its completion tokens, the bits after it, and whether the problem can go on at all."""
        self._under_way.discard(turn.problem)
        turn.reservation.commit(1 if self.ledger.unit == "calls" else tokens)
        self._bits[turn.problem].append(math.nan if bits is None else bits)
        self._more[turn.problem] = more
        self._push(turn.problem)

    def failed(self, turn: Turn) -> None:
        """End a turn whose step could not be run: the counted tokens are spent, and the problem gets no more turns."""
        self._under_way.discard(turn.problem)
        if not turn.reservation.settled:
            turn.reservation.commit()
        self._more[turn.problem] = False

    def _turn(self, problem: int, *, expected: float, keep: float = 0.0) -> Turn | None:
        """Reserve the next step's limit, or what is left if the expected cost fits; None if it does not."""
        step, calls = len(self._bits[problem]) + 1, self.ledger.unit == "calls"
        limit = self.limits[step - 1]
        whole = 1 if calls else limit
        granted = min(whole, self.ledger.remaining - math.ceil(keep))
        least = min(whole, max(1, math.ceil(expected - 1e-9)))
        if granted < least or (granted < whole and self.ledger.reserved):
            return None
        reservation = self.ledger.reserve(granted, key=f"{self._keys[problem]}#{step}")
        self._under_way.add(problem)
        return Turn(problem, step, reservation, limit if calls else granted)

    def _first_turn(self) -> Turn | None:
        """Step 1 of the next problem; if not even one token is left, the waiting problems get nothing."""
        while self._waiting:
            turn = self._turn(self._waiting[-1], expected=0.0)
            if turn is not None:
                self._waiting.pop()
                return turn
            if self.ledger.reserved:
                return None
            self._more[self._waiting.pop()] = False
        return None

    def _next_batch(self) -> Turn | None:
        if self._competition is None:
            turn = self._first_turn()
            if turn is not None or self._waiting or self._under_way:
                return turn
            self._heap = []
            self._competition = self._compete()
            for problem in range(self._n):
                self._push(problem)
        heap = self._heap
        while heap:
            problem = heap[0][2]
            turn = self._turn(problem, expected=float(self._competition.cost[problem, len(self._bits[problem])]))
            if turn is None and self.ledger.reserved:
                return None
            heapq.heappop(heap)
            if turn is not None:
                return turn
        return None

    def _compete(self) -> Competition:
        """The scores of further steps when all first steps are done."""
        entropy, truth = self._entropy(), None
        right, cost = self._outlook.matrix(range(self._n), entropy)
        if right is not None:
            # A run that has ended cannot gain anything.
            ended = ~np.array(self._more)
            right[ended] = right[ended, :1]
        if self._truth is not None and self.policy.name == "oracle":
            cost, truth = self._truth.cost, self._truth.correct > 0
        view = View(
            entropy=entropy,
            cost=cost,
            right=right,
            later=self._outlook.later if self._expectations is not None else None,
            spare=float(self.ledger.remaining),
            truth=truth,
            seed=self._seed,
        )
        return Competition(self.policy.score(view), tie_order(self.policy, self._n, seed=self._seed), cost)

    def _push(self, problem: int) -> None:
        """Let the problem compete for its next step, if the competition has begun."""
        bits = self._bits[problem]
        rivals, heap = self._competition, self._heap
        if rivals is None or heap is None or not self._more[problem] or not 1 <= len(bits) < len(self.limits):
            return
        value = rivals.score(problem, len(bits), bits)
        if value > NEVER:
            heapq.heappush(heap, (-value, rivals.ranks[problem], problem))

    def _entropy(self) -> Floats:
        """Step-1 bits; a step without a signal counts as the least sure: the safe direction is to keep reasoning."""
        entropy = np.array([bits[0] if bits else math.nan for bits in self._bits])
        unknown = np.isnan(entropy)
        entropy[unknown] = float(entropy[~unknown].max()) if not unknown.all() else 0.0
        return entropy

    def _next_online(self) -> Turn | None:
        while not self._under_way:
            if self._current is None:
                turn = self._first_turn()
                if turn is None:
                    self._heap = []
                else:
                    self._current = turn.problem
                return turn
            turn = self._further(self._current)
            if turn is not None:
                return turn
            self._current = None
        return None

    def _further(self, problem: int) -> Turn | None:
        """Another step for the current problem, if its score reaches the price of a step at the remaining budget."""
        bits = self._bits[problem]
        done = len(bits)
        if not self._more[problem] or not 1 <= done < len(self.limits) or self._expectations is None:
            return None
        expectation = self._expectations[problem]
        sample = np.asarray(expectation.sample)
        if self._price is None:
            chances, costs = self._outlook.given(expectation, sample)
            self._price = Price.of(self.policy, View(entropy=sample, cost=costs, right=chances, seed=self._seed))
        entropy = np.array([float(sample.max()) if math.isnan(bits[0]) else bits[0]])
        right, cost = self._outlook.matrix([problem], entropy)
        view = View(
            entropy=entropy,
            cost=cost,
            right=right,
            later=lambda _, step, value: self._outlook.later(problem, step, value),
            reference=sample,
            seed=self._seed * 1_000_003 + problem,
        )
        value = self.policy.score(view)(0, done, bits)
        # First steps still to come, with two standard errors on top: each problem must get one.
        waiting = len(self._waiting)
        keep = self._first_cost * waiting + 2 * self._first_spread * math.sqrt(waiting)
        pace = (self.ledger.remaining - keep) / (waiting + 1)
        if value <= NEVER or value < self._price.at(pace):
            return None
        return self._turn(problem, expected=float(cost[0, done]), keep=keep)
