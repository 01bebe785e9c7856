"""Token budget: hard problems get the tokens that easy problems save, under a ledger that cannot overspend."""

from justenough.budget.accounts import PERIODS, Accounts, Per, Standing
from justenough.budget.allocation import Allocation, allocate
from justenough.budget.comparison import STOPPING, Row, Sweep, sweep, totals_between
from justenough.budget.curves import RightGivenEntropy, StepLength
from justenough.budget.draws import Share, stops_at_the_mean
from justenough.budget.expectation import Expectation, assumed
from justenough.budget.ledger import UNITS, Ledger, Reservation, Unit
from justenough.budget.ledgerfile import Lapse
from justenough.budget.policies import (
    POLICIES,
    Clear,
    EntropyProportional,
    FirstCome,
    Greedy,
    Knapsack,
    Oracle,
    Policy,
    Uniform,
    View,
    policy_named,
)
from justenough.budget.schedule import FORMS, Form, Schedule, Turn
from justenough.budget.simulation import Recorded, Simulation, cross_fit, simulate

__all__ = [
    "FORMS",
    "PERIODS",
    "POLICIES",
    "STOPPING",
    "UNITS",
    "Accounts",
    "Allocation",
    "Clear",
    "EntropyProportional",
    "Expectation",
    "FirstCome",
    "Form",
    "Greedy",
    "Knapsack",
    "Lapse",
    "Ledger",
    "Oracle",
    "Per",
    "Policy",
    "Recorded",
    "Reservation",
    "RightGivenEntropy",
    "Row",
    "Schedule",
    "Share",
    "Simulation",
    "Standing",
    "StepLength",
    "Sweep",
    "Turn",
    "Uniform",
    "Unit",
    "View",
    "allocate",
    "assumed",
    "cross_fit",
    "policy_named",
    "simulate",
    "stops_at_the_mean",
    "sweep",
    "totals_between",
]
