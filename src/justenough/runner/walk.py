"""The run of one problem through the gate, in both shapes."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from justenough.backends.protocol import CONTEXT, Backend, Finish, Message, Request
from justenough.budget import Ledger, Reservation
from justenough.errors import BudgetError, ContextExceeded, LogprobsMissing
from justenough.gate import Action, Decision, Gate, GateSettings, Reason
from justenough.grading import Grader, Problem
from justenough.grading.graders import is_right
from justenough.runner.meter import Meter
from justenough.runner.settings import EFFORTS, PROBE_TOKENS, Observer, RunSettings
from justenough.runner.stream import Generation, opened
from justenough.signal.signal import Signal
from justenough.thought import Follower
from justenough.trace import Probe, Step, Token


class Context(NamedTuple):
    """The parts of a runner that all its problems share."""

    backend: Backend
    cascade: Backend | None
    settings: RunSettings
    grader: Grader
    gate: GateSettings
    signal: Signal
    ledger: Ledger | None
    observers: tuple[Observer, ...]


class Walk(ABC):
    """The run of one problem through the gate."""

    def __init__(self, context: Context, problem: Problem) -> None:
        self.context = context
        self.settings = context.settings
        self.problem = problem
        self.text = context.backend.read(problem.problem)
        self.gate = Gate(context.gate)
        self.steps: list[Step] = []
        self.decisions: list[Decision] = []

    @abstractmethod
    async def go(self) -> None:
        """Think until the gate, or the budget, ends the run."""

    async def run(self, earlier: Sequence[Step] = ()) -> None:
        """Run the problem after some `earlier` steps; a conversation that is too long for the model ends the run."""
        for step in earlier:
            self.steps.append(step)
            self.decisions.append(self.gate.observe(step))
        try:
            await self.go()
        except ContextExceeded:
            step = self.overlong()
            decision = self.gate.observe(step)
            self.ended(step, replace(decision, action=Action.FINISH, reason=Reason.CONTEXT))

    def overlong(self) -> Step:
        """The step of a conversation that is longer than the model's context: the answer before it stays."""
        last = self.steps[-1] if self.steps else Step(tokens=0)
        step = self.step(Generation(finish=Finish(reason=CONTEXT, tokens=0)), answer=last.answer, tokens=0)
        return replace(step, correct=last.correct)

    def take(self, generation: Generation, item: Token) -> Token:
        """Record a token and show it to the observers."""
        token = generation.take(item, self.context.signal)
        for observer in self.context.observers:
            observer.token(token, step=len(self.steps) + 1)
        return token

    def ended(self, step: Step, decision: Decision) -> bool:
        """Record a step; returns whether the run is over."""
        if step.entries == 0 and step.tokens and not self.steps:
            raise LogprobsMissing(
                f"{self.context.backend.model} answered without log-probabilities",
                hint="serve it with log-probabilities: vLLM --max-logprobs 20, llama.cpp and OpenAI top_logprobs",
            )
        self.steps.append(step)
        self.decisions.append(decision)
        for observer in self.context.observers:
            observer.step(step, decision)
        return decision.ends

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
        )

    def step(self, generation: Generation, *, answer: str | None, tokens: int, model: str | None = None) -> Step:
        """A generation as a step; `tokens` are without look-ahead tokens, which are added."""
        finish, signals = generation.finish, generation.signals()
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
            decision = self.gate.end_step(tokens=step.tokens)
            ledger = self.context.ledger
            if ledger is not None and not decision.ends and ledger.remaining < 1:
                decision = replace(decision, action=Action.FINISH, reason=Reason.BUDGET)
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
        sample = context.grader.extract(generation.text)
        if self.settings.extend != "vote":
            return self.step(generation, answer=sample, tokens=tokens, model=backend.model)
        # The step's answer is the majority so far; its own answer is stored beside it, for rules that weigh the votes.
        answer = majority([*(context.grader.extract(step.text) for step in self.steps), sample])
        step = self.step(generation, answer=answer, tokens=tokens, model=backend.model)
        return replace(step, extra={**step.extra, "sample": sample, "sample_correct": self.correct(sample)})

    def conversation(self, backend: Backend) -> tuple[tuple[Message, ...], bool]:
        """The messages of the next step, and whether the last one is to be continued."""
        prompts = backend.prompts
        ask = Message("user", prompts.ask.format(problem=self.text))
        if not self.steps or self.settings.extend in ("vote", "effort", "cascade"):
            return (ask,), False
        if self.settings.extend == "wait":
            thought = "".join(prompts.thought.thought_of(step.text) for step in self.steps)
            return (ask, Message("assistant", f"{thought}{prompts.wait}")), True
        messages = [ask]
        for step in self.steps:
            messages += [Message("assistant", step.text), Message("user", prompts.refine)]
        return tuple(messages), False


class Streaming(Walk):
    """A step is a segment of one long thought."""

    def __init__(self, context: Context, problem: Problem) -> None:
        super().__init__(context, problem)
        self.follower = Follower(context.backend.prompts.thought)
        self.question = Message("user", context.backend.prompts.think.format(problem=self.text))
        self.thought: list[str] = []

    async def go(self) -> None:
        """Follow the thought; cut it when the gate stops."""
        recording = self.context.gate.threshold is None
        generation = Generation()
        stop: tuple[Step, Decision] | None = None
        async with opened(self.context.backend, self.request(1, (self.question,), continued=False)) as stream:
            async for item in stream:
                decision = self.follow(generation, item)
                if decision is None:
                    continue
                step = self.step(generation, answer=None, tokens=len(generation.tokens))
                generation = Generation()
                if decision.ends:
                    stop = step, decision
                    break
                self.ended(await self.probed(step) if recording else step, decision)
        if stop is not None:
            # The stream is closed: the model generates no more of the thought.
            self.ended(await self.probed(stop[0]), stop[1])
            return
        self.ended_by_itself(generation)
        # One request generated all segments, and its prompt was read once.
        if generation.finish is not None and (tokens := generation.finish.prompt_tokens) is not None:
            self.steps = [replace(step, prompt_tokens=tokens if not at else 0) for at, step in enumerate(self.steps)]

    def follow(self, generation: Generation, item: Token | Finish) -> Decision | None:
        """Take one item of the stream; returns the gate's decision if a step of the thought ends with it."""
        if isinstance(item, Finish):
            generation.finish = item
            return None
        token = self.take(generation, item)
        self.thought.append(token.text)
        if self.follower.answering:
            return None
        words = self.follower.feed(token.text)
        if words and not words.isspace():
            generation.thinking = len(generation.tokens)
        if self.follower.answering:
            return None
        self.gate.meter.measure(token)
        return self.gate.end_step() if words is not None and self.gate.meter.splits(words) else None

    def ended_by_itself(self, generation: Generation) -> None:
        """The stream ended without a stop: the rest of the thought is one more step, and the answer is the model's."""
        generation.finished()
        if not generation.tokens and self.steps:
            return
        closed = self.follower.answering
        answer = None
        if closed or not self.follower.thought:
            text = self.context.backend.prompts.thought.answer_of(generation.text)
            answer = self.context.grader.extract(text)
        thought, rest = generation.split()
        if (thought.tokens and not closed) or not (thought.tokens or self.steps):
            # A thought without an end, or no thought at all.
            thought, rest = generation, Generation()
        probe = None
        if rest.tokens:
            # The model answered by itself, so nothing was read again.
            tokens = len(rest.tokens) + rest.discarded
            probe = replace(self.probe(rest, answer=answer, tokens=tokens), prompt_tokens=0)
        if not thought.tokens:
            # Only the closing tag and the answer: they take the place of the last step's probe.
            last, decision = self.steps.pop(), self.decisions.pop()
            finish = generation.finished().reason
            joined = replace(last, answer=answer, correct=self.correct(answer), probe=probe, finish=finish)
            self.ended(joined, replace(decision, action=Action.FINISH))
            return
        step = replace(self.step(thought, answer=answer, tokens=len(thought.tokens)), probe=probe)
        decision = self.gate.observe(step)
        self.ended(step, decision if decision.ends else replace(decision, action=Action.FINISH))

    def probe(self, generation: Generation, *, answer: str | None, tokens: int) -> Probe:
        """The answer after the thought, with the signal of its tokens."""
        signals = generation.signals()
        return Probe(
            answer=answer,
            correct=self.correct(answer),
            tokens=tokens,
            prompt_tokens=generation.finish.prompt_tokens if generation.finish is not None else None,
            text=generation.text,
            entropies=signals.entropies or None,
            logprobs=signals.logprobs or None,
            token_texts=signals.texts,
        )

    async def probed(self, step: Step) -> Step:
        """Close the thought after this step and elicit the answer; a thought that fills the context has no answer."""
        prompts = self.context.backend.prompts
        thought = "".join(self.thought).removesuffix(self.follower.pending)
        closed = Message("assistant", f"{thought}{prompts.close}{prompts.answer}")
        generation = Generation()
        request = self.request(len(self.steps) + 1, (self.question, closed), continued=True, probe=True)
        try:
            async with opened(self.context.backend, request) as stream:
                async for item in stream:
                    if isinstance(item, Finish):
                        generation.finish = item
                    else:
                        generation.take(item, self.context.signal)
        except ContextExceeded:
            return replace(step, finish=CONTEXT)
        answer = self.context.grader.extract(prompts.answer + generation.text)
        probe = self.probe(generation, answer=answer, tokens=generation.finished().tokens + generation.discarded)
        return replace(step, answer=answer, correct=probe.correct, probe=probe)


def majority(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer, on a tie the earliest; None without any answer."""
    counts = Counter(answer for answer in answers if answer is not None)
    return counts.most_common(1)[0][0] if counts else None
