"""The run of one problem through the gate, in both shapes."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from justenough.backends.protocol import CONTEXT, Backend, Finish, Message, Request
from justenough.budget import Ledger
from justenough.errors import BudgetError, ContextExceeded, LogprobsMissing
from justenough.gate import Action, Decision, Gate, GateSettings, Reason
from justenough.grading import Grader, Problem
from justenough.runner.meter import Meter
from justenough.runner.settings import EFFORTS, PROBE_TOKENS, Observer, RunSettings
from justenough.runner.stream import Generation, opened
from justenough.signal.signal import Signal
from justenough.thought import Follower
from justenough.trace import Probe, Step, Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
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

    def __init__(self, context: Context, problem: Problem, text: str) -> None:
        self.context = context
        self.settings = context.settings
        self.problem = problem
        self.text = text
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
        finish = generation.finish
        measured = [token for token in generation.tokens if token.entropy is not None]
        logprobs = [token.logprob for token in measured if token.logprob is not None]
        # Four decimals are precise enough for a vote and need a third of the space.
        confidences = [round(token.confidence, 4) for token in measured if token.confidence is not None]
        return Step(
            text=generation.text,
            answer=answer,
            correct=self.correct(answer),
            tokens=tokens + generation.discarded,
            finish=finish.reason if finish is not None else None,
            model=model,
            prompt_tokens=finish.prompt_tokens if finish is not None else None,
            latency_s=time.monotonic() - generation.begun,
            entropies=tuple(token.entropy for token in measured if token.entropy is not None),
            logprobs=tuple(logprobs) if len(logprobs) == len(measured) else None,
            token_texts=tuple(token.text for token in measured) if len(measured) == len(generation.tokens) else None,
            confidences=tuple(confidences) if len(confidences) == len(measured) else None,
            extra=generation.extra,
        )

    def correct(self, answer: str | None) -> bool | None:
        """Whether an answer is right; None without an answer or without a target."""
        if answer is None or self.problem.target is None:
            return None
        return self.context.grader.grade(answer, self.problem.target)


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
        key = f"{self.problem.id}#{len(self.steps) + 1}"
        most = 1 if ledger.unit == "calls" else self.settings.max_tokens
        with ledger.reserve(most, at_least=1, key=key) as reservation:
            limit = self.settings.max_tokens if ledger.unit == "calls" else reservation.limit
            step = await self.next_step(max_tokens=limit, meter=Meter(reservation, max_tokens=limit))
        if step.finish == "length" and limit < self.settings.max_tokens:
            # Cut by the budget: the answer before it stays, if there is one.
            if self.steps:
                last = self.steps[-1]
                return replace(step, answer=last.answer, correct=last.correct)
            if step.answer is None:
                raise BudgetError(f"{limit} tokens were not enough for one step", hint="raise the budget")
        return step

    async def next_step(self, *, max_tokens: int | None = None, meter: Meter | None = None) -> Step:
        """Think one more step after the existing ones; `meter` counts it under a budget."""
        context, number = self.context, len(self.steps) + 1
        backend = context.cascade if context.cascade is not None and number > 1 else context.backend
        generation = Generation()
        messages, continued = self.conversation(backend)
        request = self.request(number, messages, continued=continued)
        if max_tokens is not None:
            request = replace(request, max_tokens=min(request.max_tokens, max_tokens))
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

    def __init__(self, context: Context, problem: Problem, text: str) -> None:
        super().__init__(context, problem, text)
        self.follower = Follower(context.backend.prompts.thought)

    async def go(self) -> None:
        """Watch the thought; cut it when the gate stops."""
        context = self.context
        ask = Message("user", context.backend.prompts.think.format(problem=self.text))
        recording = context.gate.threshold is None
        thought: list[str] = []
        generation = Generation()
        async with opened(context.backend, self.request(1, (ask,), continued=False)) as stream:
            async for item in stream:
                decision = self.follow(generation, item)
                if isinstance(item, Token):
                    thought.append(item.text)
                if decision is None:
                    continue
                step = self.step(generation, answer=None, tokens=len(generation.tokens))
                generation = Generation()
                if decision.ends:
                    # Cancel first: the model must not generate any more.
                    await stream.aclose()
                if decision.ends or recording:
                    step = await self.probed(ask, "".join(thought).removesuffix(self.follower.pending), step)
                if self.ended(step, decision):
                    return
        self.ended_by_itself(generation)
        # One request wrote all segments, and its prompt was read once.
        if generation.finish is not None and (read := generation.finish.prompt_tokens) is not None:
            self.steps = [replace(step, prompt_tokens=read if not at else 0) for at, step in enumerate(self.steps)]

    def follow(self, generation: Generation, item: Token | Finish) -> Decision | None:
        """Take one item of the stream; returns the gate's decision if a step of the thought ends with it."""
        if isinstance(item, Finish):
            generation.finish = item
            return None
        token = self.take(generation, item)
        if self.follower.answering:
            return None
        words = self.follower.feed(token.text)
        if words and not words.isspace():
            generation.own = len(generation.tokens)
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
        own, rest = generation.parted()
        if (own.tokens and not closed) or not (own.tokens or self.steps):
            # A thought without an end, or no thought at all.
            own, rest = generation, Generation()
        probe = None
        if rest.tokens:
            # The model answered by itself, so nothing was read again.
            counted = len(rest.tokens) + rest.discarded
            probe = replace(self.probe(rest, answer=answer, tokens=counted), prompt_tokens=0)
        if not own.tokens:
            # Only the closing tag and the answer: they take the place of the last step's probe.
            last, decision = self.steps.pop(), self.decisions.pop()
            finish = generation.finished().reason
            joined = replace(last, answer=answer, correct=self.correct(answer), probe=probe, finish=finish)
            self.ended(joined, replace(decision, action=Action.FINISH))
            return
        step = replace(self.step(own, answer=answer, tokens=len(own.tokens)), probe=probe)
        decision = self.gate.observe(step)
        self.ended(step, decision if decision.ends else replace(decision, action=Action.FINISH))

    def probe(self, generation: Generation, *, answer: str | None, tokens: int) -> Probe:
        """The answer after the thought, with the signal of its tokens."""
        bits = [token.entropy for token in generation.tokens if token.entropy is not None]
        logprobs = [token.logprob for token in generation.tokens if token.logprob is not None]
        whole = len(bits) == len(generation.tokens)
        return Probe(
            answer=answer,
            correct=self.correct(answer),
            tokens=tokens,
            prompt_tokens=generation.finish.prompt_tokens if generation.finish is not None else None,
            text=generation.text,
            entropies=tuple(bits) or None,
            logprobs=tuple(logprobs) if logprobs and len(logprobs) == len(bits) else None,
            token_texts=tuple(token.text for token in generation.tokens) if whole else None,
        )

    async def probed(self, ask: Message, thought: str, step: Step) -> Step:
        """Close the thought after this step and elicit the answer; a thought that fills the context has no answer."""
        backend = self.context.backend
        closed = Message("assistant", f"{thought}{backend.prompts.close}{backend.prompts.answer}")
        generation = Generation()
        request = self.request(len(self.steps) + 1, (ask, closed), continued=True, probe=True)
        try:
            async with opened(backend, request) as stream:
                async for item in stream:
                    if isinstance(item, Finish):
                        generation.finish = item
                    else:
                        generation.take(item, self.context.signal)
        except ContextExceeded:
            return replace(step, finish=CONTEXT)
        answer = self.context.grader.extract(backend.prompts.answer + generation.text)
        probe = self.probe(generation, answer=answer, tokens=generation.finished().tokens + generation.discarded)
        return replace(step, answer=answer, correct=probe.correct, probe=probe)


def majority(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer, on a tie the earliest; None without any answer."""
    counts = Counter(answer for answer in answers if answer is not None)
    return counts.most_common(1)[0][0] if counts else None
