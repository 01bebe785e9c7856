"""The runner: problems in, traces and decisions out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from justenough.backends.protocol import Backend
from justenough.budget import Ledger, Reservation
from justenough.errors import ContextExceeded, InputError, ProblemRefused
from justenough.gate import Decision, GateSettings
from justenough.grading import Grader, Problem
from justenough.rules.live import LiveRule, Watch
from justenough.runner.settings import Observer, RunSettings
from justenough.runner.streaming import Streaming
from justenough.runner.walk import Context, Sequential, spent
from justenough.signal.signal import Signal
from justenough.trace import Json, Step, Trace


class Run(NamedTuple):
    """The result of a run: its trace and the gate's decision after each step."""

    trace: Trace
    """The recorded steps."""
    decisions: tuple[Decision, ...]
    """One decision for each step."""

    @property
    def spent(self) -> int:
        """Completion tokens with those of all probes."""
        return spent(self.trace.steps)


class Runner:
    """Runs problems on a backend under one setting; `cascade` is the backend for later steps."""

    def __init__(
        self,
        backend: Backend,
        settings: RunSettings,
        *,
        grader: Grader,
        gate: GateSettings | None = None,
        rule: LiveRule | None = None,
        cascade: Backend | None = None,
        ledger: Ledger | None = None,
        observer: Observer | None = None,
    ) -> None:
        """`gate` or `rule` decides when to stop (by default never), `ledger` limits the tokens of all runs together."""
        if settings.shape == "sequential" and (settings.extend == "cascade") != (cascade is not None):
            raise InputError("`cascade` needs a second model, and only it does", hint="name it with --cascade SPEC")
        self.backend = backend
        self.settings = settings
        self.grader = grader
        if ledger is not None and settings.shape == "streaming":
            raise InputError("a budget is spent in sequential steps", hint="--shape sequential")
        self.signal = signal_of(backend, settings)
        if gate is not None and rule is not None:
            raise InputError("both a gate and a rule would decide when to stop", hint="give one of the two")
        self.rule = rule
        if gate is None:
            gate = GateSettings(signal=self.signal, shape=settings.shape, max_steps=settings.max_steps)
        gate.signal.require(self.signal.pooled_as(gate.signal), what="the run's steps", own="the gate's")
        if gate.shape != settings.shape:
            raise InputError(f"the gate is for {gate.shape} steps, the run is {settings.shape}", hint="--shape")
        self.gate = replace(gate, max_steps=min(gate.max_steps, settings.max_steps))
        observers = () if observer is None else (observer,)
        self._context = Context(backend, cascade, settings, grader, self.gate, rule, self.signal, ledger, observers)

    async def run(
        self,
        problem: Problem,
        *,
        settings_digest: str | None = None,
        earlier: Sequence[Step] = (),
        observer: Observer | None = None,
    ) -> Run:
        """Run one problem to its stop, after some `earlier` sequential steps; `observer` watches this run only.

        A conversation that is longer than the model's context is recorded as a step without tokens, whose `finish` is
        `context`, and a problem outside its language likewise as `refused`. Raises `BackendError` if the model cannot
        be used.
        """
        context = self._context
        if observer is not None:
            context = context._replace(observers=(*context.observers, observer))
        walk = (Streaming if self.settings.shape == "streaming" else Sequential)(context, problem)
        if self.rule is not None:
            walk.watch = Watch(self.rule, self.trace(problem, ()))
        await walk.run(earlier)
        return Run(self.trace(problem, walk.steps, settings_digest=settings_digest), tuple(walk.decisions))

    async def step(
        self,
        problem: Problem,
        earlier: Sequence[Step],
        *,
        max_tokens: int | None = None,
        reservation: Reservation | None = None,
    ) -> Step:
        """One sequential step after `earlier`, without a decision; cut at `max_tokens`.

        A `reservation` counts tokens as they come and cuts the step at its limit, or it counts the call. The caller
        settles it.
        """
        if self.settings.shape != "sequential":
            raise InputError("single steps need the sequential shape", hint="--shape sequential")
        walk = Sequential(self._context, problem)
        walk.steps = list(earlier)
        try:
            return await walk.next_step(max_tokens=max_tokens, reservation=reservation)
        except (ContextExceeded, ProblemRefused) as error:
            return walk.not_begun(error)

    def trace(self, problem: Problem, steps: Sequence[Step], *, settings_digest: str | None = None) -> Trace:
        """The trace of a problem with these steps; under a live rule `extra` has its name and all tokens `spent`."""
        extra: dict[str, Json] = {"other_targets": list(problem.other_targets)} if problem.other_targets else {}
        if self.rule is not None:
            extra |= {"rule": self.rule.name, "spent": spent(steps)}
        return Trace(
            id=problem.id,
            task=problem.task,
            family=problem.family,
            group=problem.group,
            model=self.backend.model,
            shape=self.settings.shape,
            problem=problem.problem,
            target=problem.target,
            seed=self.settings.seed,
            settings=settings_digest,
            prompts=self.backend.prompts,
            signal=self.signal,
            steps=tuple(steps),
            extra=extra,
        )


def signal_of(backend: Backend, settings: RunSettings) -> Signal:
    """The signal that a run on this backend measures."""
    measured = backend.signal(temperature=settings.temperature, top_k=settings.top_k)
    splitter = "completion" if settings.shape == "sequential" else settings.splitter or "paragraph"
    return replace(measured, splitter=splitter)


def equals_replay(run: Run, recorded: Trace) -> bool:
    """Whether a live run equals the beginning of a recorded trace, token for token and bit for bit, and its answer."""
    steps = run.trace.steps
    before = recorded.steps[: len(steps)]
    # A streaming run elicits an answer only at its stop, or where its rule looks.
    return (
        run.trace.tokens == recorded.tokens_to(len(steps))
        and steps[-1].answer == before[-1].answer
        and [(step.text, step.entropies) for step in steps] == [(step.text, step.entropies) for step in before]
    )
