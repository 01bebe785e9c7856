"""Allocation policies: which problem gets the next step. A new policy is one dataclass and one line in the registry.

A policy only scores steps: the step with the highest score is served first, and a score of -inf is never served. In the
batch form all step-1 entropies are known and the problems compete by score. In the online form problems arrive one at a
time, and a step is taken if its score reaches the price that the remaining budget puts on a step (see `Price`).

| policy | needs beforehand | forms |
|---|---|---|
| `uniform` | nothing | batch, online |
| `first-come` | nothing | batch, online |
| `entropy-proportional` | step-1 entropies | batch, online |
| `greedy` | P(right given H) after each step, and lengths, fitted on other problems | batch, online |
| `clear` | the same as `greedy` | batch, online |
| `knapsack` | the same, of all problems at once | batch |
| `oracle` | which steps are right and their true cost | batch |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from justenough.budget.curves import Floats
from justenough.budget.knapsack import ROUNDING, optimum
from justenough.errors import BudgetError
from justenough.stats.drawing import generator

Score = Callable[[int, int, list[float]], float]
"""(problem, steps done ≥ 1, bits after each of them, NaN if unknown) → score of the next step."""

NEVER: Final = -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a policy may see of the problems when step 1 of each is done."""

    entropy: Floats
    """Bits after step 1, (n,)."""
    cost: Floats
    """Expected cost of each step in the ledger's unit, (n, K)."""
    right: Floats | None = None
    """P(right after each step) given the entropy of step 1, (n, K)."""
    later: Callable[[int, int, float], list[float]] | None = None
    """(problem, step, bits after it) → P(right) after that step … K; None: policies do not see later entropies."""
    spare: float = math.inf
    """The budget that is left after step 1 of all problems."""
    reference: Floats | None = None
    """Online: step-1 bits of other problems, which stand for those to come."""
    truth: NDArray[np.bool_] | None = None
    """Whether each step is right, (n, K): only for the oracle."""
    seed: int = 0


class Policy(Protocol):
    """Scores next steps; hyperparameters are in the constructor. A policy may inherit the defaults from this class."""

    __slots__ = ()
    name: ClassVar[str]
    """The name in the registry."""
    needs: ClassVar[str]
    """What it must know beforehand, in one line."""
    online: ClassVar[bool] = True
    """Whether it can serve problems that arrive one at a time."""
    expects: ClassVar[bool] = False
    """Whether it needs P(right | H)."""
    by_chance: ClassVar[bool] = False
    """Whether its seed decides between problems. One run then says little about the policy."""
    in_order: ClassVar[bool] = False
    """Whether equal scores are served in order of arrival; otherwise in seeded random order."""

    def score(self, view: View) -> Score:
        """The scores on these problems."""


@dataclass(frozen=True, slots=True)
class Uniform(Policy):
    """The same number of steps for each problem; the remainder gives one more step to a seeded random part of them."""

    name: ClassVar[str] = "uniform"
    needs: ClassVar[str] = "nothing"
    by_chance: ClassVar[bool] = True

    def score(self, view: View) -> Score:
        """Second steps before third ones; within a round in seeded random order."""
        order = generator(view.seed, 1).random(view.cost.shape)
        return lambda problem, done, bits: -done + float(order[problem, done])


@dataclass(frozen=True, slots=True)
class FirstCome(Policy):
    """All steps for the first problems, until the budget is spent."""

    name: ClassVar[str] = "first-come"
    needs: ClassVar[str] = "nothing"
    in_order: ClassVar[bool] = True

    def score(self, view: View) -> Score:
        """Earlier problems first."""
        return lambda problem, done, bits: 0.0


@dataclass(frozen=True, slots=True)
class EntropyProportional(Policy):
    """Shares of the spare budget that rise with the entropy of step 1, apportioned by highest averages (D'Hondt).

    The idea is the paper's (arXiv 2510.08146), but its exact formula is not known to us: the parameters have its names
    and our definitions. The share of problem i is `(1 - α)/N + α · w_i / Σ w` with `w_i = max(H_i - δ, 0) ** γ`.
    Tokens that the shares leave over go to the problems without a share: second steps before third ones, and within a
    round the highest entropy first.
    """

    alpha: float = 1.0
    """Part of the spare budget that follows the entropy; the rest is shared evenly. From 0 (uniform) to 1."""
    delta: float = 0.0
    """A problem of at most this many bits counts as easy and has no share of the part that follows the entropy."""
    gamma: float = 1.0
    """Sharpness, at least 0: 0 makes all harder problems equal, 2 favours the hardest."""
    name: ClassVar[str] = "entropy-proportional"
    needs: ClassVar[str] = "the entropy of step 1"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1 or not 0 <= self.delta < math.inf or not 0 <= self.gamma < math.inf:
            raise BudgetError(
                f"alpha {self.alpha!r}, delta {self.delta!r}, gamma {self.gamma!r}",
                hint="alpha from 0 to 1, delta in bits and gamma at least 0",
            )

    def shares(self, entropy: Floats, *, reference: Floats | None = None) -> Floats:
        """Shares relative to the even one (n,); `reference` are the problems that share, by default these."""
        mean = float(self._weights(entropy if reference is None else reference).mean())
        # If no problem is above δ, all shares are equal.
        follow = self._weights(entropy) / mean if mean > 0 else np.ones_like(entropy)
        relative: Floats = (1 - self.alpha) + self.alpha * follow
        return relative

    def _weights(self, entropy: Floats) -> Floats:
        above = np.maximum(entropy - self.delta, 0.0)
        # 0 ** 0 is 1, but an easy problem must have no weight at any sharpness.
        weights: Floats = np.where(above > 0, above**self.gamma, 0.0)
        return weights

    def score(self, view: View) -> Score:
        """The share over what the problem would have been given with the next step; below 0 without a share."""
        shares = self.shares(view.entropy, reference=view.reference)
        costs = np.cumsum(view.cost[:, 1:], axis=1)

        def score(problem: int, done: int, bits: list[float]) -> float:
            share = float(shares[problem])
            if share > 0:
                return share / float(costs[problem, done - 1])
            return -done - 1 / (1 + max(0.0, float(view.entropy[problem])))

        return score


@dataclass(frozen=True, slots=True)
class Greedy(Policy):
    """The largest expected gain per token first; a step without an expected gain is never taken."""

    adaptive: bool = True
    """Also use the entropies of later steps, if they are known."""
    name: ClassVar[str] = "greedy"
    needs: ClassVar[str] = "P(right given H) after each step, and the steps' lengths, fitted on other problems"
    expects: ClassVar[bool] = True

    def score(self, view: View) -> Score:
        """Gain per cost over the best number of further steps: a step that only prepares the next one counts too."""
        right = _required(view, self.name)
        steps = view.cost.shape[1]
        later = view.later if self.adaptive else None

        def score(problem: int, done: int, bits: list[float]) -> float:
            chances = right[problem, done - 1 :].tolist()
            if later is not None:
                for step in range(done, 1, -1):
                    if not math.isnan(bits[step - 1]):
                        chances = later(problem, step, bits[step - 1])[done - step :]
                        break
            best, spent = NEVER, 0.0
            for more in range(1, steps - done + 1):
                spent += float(view.cost[problem, done + more - 1])
                gain = chances[more] - chances[0]
                if gain > ROUNDING:
                    best = max(best, gain / spent)
            return best

        return score


@dataclass(frozen=True, slots=True)
class Clear(Policy):
    """`greedy` with a fixed price: a problem that cannot pay it is abandoned, also while tokens are left.

    The idea is that of CLEAR (arXiv 2606.03092): one price for a token, and rational abandonment. `greedy` reaches the
    price at which the budget runs out. Below the price of this policy, tokens stay unspent. The price is ours.
    """

    least: float = 0.01
    """Price of an average further step: the P(right) that it must gain. 0 is `greedy`."""
    name: ClassVar[str] = "clear"
    needs: ClassVar[str] = Greedy.needs
    expects: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.least <= 1:
            raise BudgetError(f"least is {self.least!r}", hint="the gain that an average step must bring, from 0 to 1")

    def score(self, view: View) -> Score:
        """The score of `greedy` where it reaches the price; online the average is over the problem's own steps."""
        greedy = Greedy().score(view)
        price = self.least / float(view.cost[:, 1:].mean()) if view.cost.shape[1] > 1 else 0.0

        def score(problem: int, done: int, bits: list[float]) -> float:
            value = greedy(problem, done, bits)
            return value if value >= price else NEVER

        return score


@dataclass(frozen=True, slots=True)
class Knapsack(Policy):
    """The numbers of steps with the largest sum of expected gains that fits: an upper bound for `greedy`."""

    name: ClassVar[str] = "knapsack"
    needs: ClassVar[str] = "what greedy needs, of all problems at once"
    online: ClassVar[bool] = False
    expects: ClassVar[bool] = True

    def score(self, view: View) -> Score:
        """Steps of the optimum in order of gain per cost, other steps never."""
        right = _required(view, self.name)
        gain, price = right - right[:, :1], np.cumsum(view.cost, axis=1) - view.cost[:, :1]
        chosen = optimum(gain, price, room=view.spare)
        greedy = Greedy(adaptive=False).score(view)
        return lambda problem, done, bits: (
            max(greedy(problem, done, bits), 0.0) if done < int(chosen[problem]) else NEVER
        )


@dataclass(frozen=True, slots=True)
class Oracle(Policy):
    """Only steps that turn a wrong answer right, the cheapest first. This is the exact optimum: each gain is 1."""

    name: ClassVar[str] = "oracle"
    needs: ClassVar[str] = "which steps are right, and their true cost"
    online: ClassVar[bool] = False

    def score(self, view: View) -> Score:
        """One over the cost up to the first right answer."""
        if view.truth is None:
            raise BudgetError("the oracle needs recorded and graded steps", hint="replay traces with all steps")
        target = np.where(view.truth.any(axis=1), view.truth.argmax(axis=1) + 1, 1)
        costs = np.cumsum(view.cost, axis=1) - view.cost[:, :1]
        price = costs[np.arange(len(target)), target - 1]
        return lambda problem, done, bits: (
            1 / max(float(price[problem]), 1e-9) if done < int(target[problem]) else NEVER
        )


class Service(NamedTuple):
    """One further step in the order of service."""

    negative: float
    """Minus the lowest score of the problem up to this step."""
    rank: int
    done: int
    """Steps of the problem before this one."""
    problem: int


def served(score: Score, *, problems: int, steps: int, ranks: Sequence[int]) -> list[Service]:
    """All further steps in the order of service while the budget lasts, if later entropies are unknown.

    The steps of one problem keep their order. So a step counts with the lowest score of its problem so far.
    """
    order = []
    for problem in range(problems):
        lowest = math.inf
        for done in range(1, steps):
            value = score(problem, done, [])
            if value <= NEVER:
                break
            lowest = min(lowest, value)
            order.append(Service(-lowest, ranks[problem], done, problem))
    return sorted(order)


def tie_order(policy: Policy, n: int, *, seed: int) -> list[int]:
    """The rank of each problem among equals."""
    ranks: list[int] = list(range(n)) if policy.in_order else generator(seed, 2).permutation(n).tolist()
    return ranks


def _required(view: View, policy: str) -> Floats:
    if view.right is None:
        raise BudgetError(
            f"{policy} needs P(right | H) after each step", hint="fit an Expectation on other problems, or take uniform"
        )
    return view.right


POLICIES: Final[Mapping[str, Callable[[], Policy]]] = MappingProxyType(
    {policy.name: policy for policy in (Uniform, FirstCome, EntropyProportional, Greedy, Clear, Knapsack, Oracle)}
)
"""Name → policy at its default hyperparameters."""


def policy_named(policy: str | Policy) -> Policy:
    """The policy of a name, at its defaults; raises `BudgetError` for an unknown name."""
    if not isinstance(policy, str):
        return policy
    if policy not in POLICIES:
        raise BudgetError(f"unknown policy {policy!r}", hint=f"one of {', '.join(POLICIES)}")
    return POLICIES[policy]()
