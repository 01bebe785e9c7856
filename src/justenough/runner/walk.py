"""The run of one problem through the gate or under a live rule: what both shapes share, and sequential steps."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from justenough.backends.protocol import CONTEXT, NOT_BEGUN, REFUSED, Backend, Finish, Message, Request
from justenough.budget import Ledger, Reservation
from justenough.errors import BudgetError, ContextExceeded, LogprobsMissing, ProblemRefused
from justenough.gate import Action, Decision, Gate, GateSettings, Reason
from justenough.grading import Grader, Problem
from justenough.grading.graders import is_right
from justenough.rules.live import LiveRule, Watch
from justenough.runner.branching import next_branch
from justenough.runner.meter import Meter
from justenough.runner.settings import EFFORTS, PROBE_TOKENS, SAMPLED, Observer, RunSettings
from justenough.runner.stream import Generation, opened
from justenough.signal.signal import Signal
from justenough.trace import Step, Token


class Context(NamedTuple):
    """The parts of a runner that all its problems share."""

    backend: Backend
    cascade: Backend | None
    settings: RunSettings
    grader: Grader
    gate: GateSettings
    rule: LiveRule | None
    signal: Signal
    ledger: Ledger | None
    observers: tuple[Observer, ...]


def spent(steps: Sequence[Step]) -> int:
    """Completion tokens of steps with all their probes, also of those that are in no step because another answer
    replaced them (`trial` in `Step.extra`)."""
    return sum(step.total_tokens + (step.count("trial") or 0) for step in steps)


def require_readable(backend: Backend, problems: Sequence[Problem]) -> Problem | None:
    """The first problem that is within the language of the model, None if there are no problems.

    Raises `ProblemRefused` if the model can read none of them.
    """
    refused: ProblemRefused | None = None
    for problem in problems:
        try:
            backend.read(problem.problem)
        except ProblemRefused as error:
            refused = refused or error
        else:
            return problem
    if refused is not None:
        raise refused
    return None


class Walk(ABC):
    """The run of one problem through the gate, or under a live rule."""

    watch: Watch | None = None
    """Follows the run for the live rule, if there is one."""

    def __init__(self, context: Context, problem: Problem) -> None:
        self.context = context
        self.settings = context.settings
        self.problem = problem
        self.gate = Gate(context.gate)
        self.steps: list[Step] = []
        self.decisions: list[Decision] = []

    @property
    def text(self) -> str:
        """The problem as the model reads it; raises `ProblemRefused` for a problem outside its language."""
        return self.context.backend.read(self.problem.problem)

    @abstractmethod
    async def go(self) -> None:
        """Think until the gate, or the budget, ends the run."""

    async def run(self, earlier: Sequence[Step] = ()) -> None:
        """Run the problem after some `earlier` steps.

        A conversation that is too long for the model, or a problem outside its language, ends the run.
        """
        for step in earlier:
            self.steps.append(step)
            self.decisions.append(self.ruled(step, self.gate.observe(step)))
        try:
            await self.go()
        except (ContextExceeded, ProblemRefused) as error:
            step = self.not_begun(error)
            reason = Reason.REFUSED if step.finish == REFUSED else Reason.CONTEXT
            self.ended(step, replace(self.gate.observe(step), action=Action.FINISH, reason=reason))

    def ruled(self, step: Step, decision: Decision) -> Decision:
        """The gate's decision, or that of the live rule if there is one and the steps are not all done."""
        if self.watch is None or decision.ends:
            return decision
        self.require_logprobs(step)
        # A thought that fills the context has no probe to look at.
        stops = step.finish not in NOT_BEGUN and self.watch.stops(step)
        return replace(decision, action=Action.STOP if stops else Action.EXTEND, reason=Reason.RULE)

    def not_begun(self, error: ContextExceeded | ProblemRefused) -> Step:
        """The step that could not begin because of this error: the answer before it stays."""
        last = self.steps[-1] if self.steps else Step(tokens=0)
        finish = Finish(reason=REFUSED if isinstance(error, ProblemRefused) else CONTEXT, tokens=0)
        step = self.step(Generation(finish=finish), answer=last.answer, tokens=0)
        return replace(step, correct=last.correct)

    def take(self, generation: Generation, item: Token) -> Token:
        """Record a token and show it to the observers."""
        token = generation.take(item, self.context.signal)
        for observer in self.context.observers:
            observer.token(token, step=len(self.steps) + 1)
        return token

    def ended(self, step: Step, decision: Decision) -> bool:
        """Record a step; returns whether the run is over."""
        self.require_logprobs(step)
        self.steps.append(step)
        self.decisions.append(decision)
        for observer in self.context.observers:
            observer.step(step, decision)
        return decision.ends

    def require_logprobs(self, step: Step) -> None:
        """Raise `LogprobsMissing` if the first step has no log-probabilities but needs them."""
        if self.needs_logprobs and step.entries == 0 and step.tokens and not self.steps:
            raise LogprobsMissing(
                f"{self.context.backend.model} answered without log-probabilities",
                hint="serve it with log-probabilities: vLLM --max-logprobs 20, llama.cpp and OpenAI top_logprobs",
            )

    @property
    def needs_logprobs(self) -> bool:
        """Whether a model without log-probabilities is an error."""
        return self.context.rule is None or self.context.rule.needs_logprobs

    def request(self, number: int, messages: tuple[Message, ...], *, continued: bool, probe: bool = False) -> Request:
        """The request for a step, or for the answer after it."""
        settings = self.settings
        effort = EFFORTS[min(number, len(EFFORTS)) - 1] if settings.extend == "effort" else None
        return Request(
            messages=messages,
            max_tokens=min(PROBE_TOKENS, settings.max_tokens) if probe else settings.max_tokens,
            temperature=settings.temperature,
            top_k=settings.top_k,
            seed=settings.seed,
            # The elicited answer has its own noise, because it is not part of the thought.
            key=(f"{self.problem.id}#answer" if probe else self.problem.id, number),
            continue_final=continued,
            effort=effort,
            needs_logprobs=self.needs_logprobs,
        )

    def step(self, generation: Generation, *, answer: str | None, tokens: int, model: str | None = None) -> Step:
        """A generation as a step; `tokens` are without look-ahead tokens, which are added."""
        finish, signals, rows = generation.finish, generation.signals(), generation.rows
        return Step(
            text=generation.text,
            answer=answer,
            correct=self.correct(answer),
            tokens=tokens + generation.discarded,
            finish=finish.reason if finish is not None else None,
            model=model,
            prompt_tokens=finish.prompt_tokens if finish is not None else None,
            latency_s=time.monotonic() - generation.started,
            entropies=signals.entropies,
            top_logprobs=None if rows is None or len(rows) < len(signals.entropies) else tuple(rows),
            logprobs=signals.logprobs,
            token_texts=signals.texts,
            confidences=signals.confidences,
            extra=generation.extra(),
        )

    def correct(self, answer: str | None) -> bool | None:
        """Whether an answer is right; None without an answer or without a target."""
        return is_right(self.context.grader, answer, self.problem.targets)


class Sequential(Walk):
    """A step is a whole completion."""

    async def go(self) -> None:
        """Think steps until the gate, or the budget, ends the run."""
        while True:
            step = await self.budgeted_step()
            decision = self.ruled(step, self.gate.end_step(tokens=step.tokens))
            ledger = self.context.ledger
            if ledger is not None and not decision.ends and ledger.remaining < 1:
                decision = replace(decision, action=Action.FINISH, reason=Reason.BUDGET)
            if not decision.ends and not self.settings.can_extend([*self.steps, step]):
                decision = replace(decision, action=Action.FINISH, reason=Reason.MAX_STEPS)
            if self.ended(step, decision):
                break

    async def budgeted_step(self) -> Step:
        """The next step; with a ledger, its limit is at most the rest of the budget."""
        ledger = self.context.ledger
        if ledger is None:
            return await self.next_step()
        most = 1 if ledger.unit == "calls" else self.settings.max_tokens
        with ledger.reserve(most, at_least=1, key=f"{self.problem.id}#{len(self.steps) + 1}") as reservation:
            step = await self.next_step(reservation=reservation)
        if step.finish != "length" or ledger.unit == "calls" or reservation.limit >= most:
            return step
        # Cut by the budget: the answer before it stays, if there is one.
        if self.steps:
            return replace(step, answer=self.steps[-1].answer, correct=self.steps[-1].correct)
        if step.answer is None:
            raise BudgetError(f"{reservation.limit} tokens were not enough for one step", hint="raise the budget")
        return step

    async def next_step(self, *, max_tokens: int | None = None, reservation: Reservation | None = None) -> Step:
        """Think one more step after the existing ones; a reservation counts its tokens, or the call, and limits it."""
        context, number = self.context, len(self.steps) + 1
        limit = self.settings.max_tokens if max_tokens is None else min(max_tokens, self.settings.max_tokens)
        if reservation is not None and reservation.unit == "tokens":
            limit = min(limit, reservation.limit)
        meter = None if reservation is None else Meter(reservation, max_tokens=limit)
        backend = context.cascade if context.cascade is not None and number > 1 else context.backend
        generation = Generation()
        messages, continued = self.conversation(backend)
        branching = self.settings.branching
        branch = None if branching is None else next_branch(self.steps, branching)
        if branch is not None:
            messages, continued = (*messages, Message("assistant", branch.prefix)), True
            # The limit is that of the whole completion.
            limit = min(limit, max(1, self.settings.max_tokens - branch.position))
        request = replace(self.request(number, messages, continued=continued), max_tokens=limit)
        async with opened(backend, request) as stream:
            async for item in stream:
                if meter is not None and not meter.takes(item):
                    generation.finish = meter.cut()
                    break
                if isinstance(item, Finish):
                    generation.finish = item
                else:
                    self.gate.feed(self.take(generation, item))
        tokens = generation.finished().tokens
        text = generation.text if branch is None else branch.prefix + generation.text
        sample = context.grader.extract(text)
        if self.settings.extend not in SAMPLED:
            return self.step(generation, answer=sample, tokens=tokens, model=backend.model)
        # The step's answer is the majority so far; its own answer is stored beside it, for rules that weigh the votes.
        answer = majority([*(context.grader.extract(step.text) for step in self.steps), sample])
        step = self.step(generation, answer=answer, tokens=tokens, model=backend.model)
        extra = {**step.extra, "sample": sample, "sample_correct": self.correct(sample)}
        if branch is not None:
            extra["branch"] = [branch.step, branch.token]
        return replace(step, text=text, extra=extra)

    def conversation(self, backend: Backend) -> tuple[tuple[Message, ...], bool]:
        """The messages of the next step, and whether the last one is to be continued."""
        prompts = backend.prompts
        ask = Message("user", prompts.ask.format(problem=self.text))
        if not self.steps or self.settings.extend in (*SAMPLED, "effort", "cascade"):
            return (ask,), False
        if self.settings.extend == "wait":
            thought = "".join(prompts.thought.thought_of(step.text) for step in self.steps)
            return (ask, Message("assistant", f"{thought}{prompts.wait}")), True
        messages = [ask]
        for step in self.steps:
            messages += [Message("assistant", step.text), Message("user", prompts.refine)]
        return tuple(messages), False


def majority(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer, on a tie the earliest; None without any answer."""
    counts = Counter(answer for answer in answers if answer is not None)
    return counts.most_common(1)[0][0] if counts else None
