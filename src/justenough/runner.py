"""Run one problem under a gate: think a step, decide, extend or stop, elicit the answer.

*Sequential*: a step is a whole completion; extending asks again with the earlier attempts in view. *Streaming*: a step
is a segment of one long thought; on a stop the generation is really cancelled, the thought is closed, and the answer
is elicited from what was thought. The same code records all steps (a gate without threshold never stops) and runs
live, so that what replay says is what happens.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, Protocol

from justenough.backends.protocol import Backend, Finish, Message, Request
from justenough.errors import BackendUnavailable, InputError, LogprobsMissing
from justenough.gate import Action, Decision, Gate, GateSettings
from justenough.grading import Grader, Problem
from justenough.signals import Signal
from justenough.trace import Probe, Shape, Step, Token, Trace

Extend = Literal["refine", "wait", "effort", "cascade", "vote"]

EXTENSIONS: Final[tuple[Extend, ...]] = ("refine", "wait", "effort", "cascade", "vote")
EFFORTS: Final = ("low", "medium", "high")
SPLITTERS: Final[Mapping[Shape, str]] = MappingProxyType({"sequential": "completion", "streaming": "paragraph"})
PROBE_TOKENS: Final = 64
"""Token limit of an answer elicited after a thought was closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """All that shapes a run beside model and problem."""

    shape: Shape = "sequential"
    """Whether a step is a completion or a segment of one thought."""
    extend: Extend = "refine"
    """How a sequential run goes on after a step."""
    max_steps: int = 4
    """The step at which a run ends in any case."""
    max_tokens: int = 512
    """Token limit of one completion."""
    temperature: float = 0.8
    """Sampling temperature; entropies are taken before it where the backend can."""
    top_k: int = 20
    """How many log-probabilities a token is measured on."""
    seed: int = 0
    """Keys the sampling noise, with problem, step and position."""
    splitter: str | None = None
    """Where a streaming step ends; None: at a paragraph."""

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.max_tokens < 1 or self.top_k < 1:
            raise InputError("steps, tokens and top-k must be at least 1", hint="give positive numbers")
        if not 0 <= self.temperature <= 10:
            raise InputError(f"temperature {self.temperature} is outside 0 to 10", hint="0.6 to 1 is usual")


class Observer(Protocol):
    """Is told what happens while it happens."""

    def token(self, token: Token, *, step: int) -> None:
        """A token of a step has arrived; its `entropy` is in bits."""

    def step(self, step: Step, decision: Decision) -> None:
        """A step has ended and the gate has decided."""


class Run(NamedTuple):
    """What a run produced: its trace and the gate's decision after each step."""

    trace: Trace
    decisions: tuple[Decision, ...]


@dataclass(slots=True)
class _Heard:
    """What one step has said so far."""

    tokens: list[Token] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    finish: Finish | None = None

    def take(self, token: Token, signal: Signal) -> Token:
        """Record a token and return it with its entropy in bits in place of its log-probabilities."""
        measured = Token(text=token.text, entropy=token.bits(signal), logprob=token.logprob)
        self.tokens.append(measured)
        return measured

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    def finished(self) -> Finish:
        """How the generation ended; raises `BackendUnavailable` where it just broke off."""
        if self.finish is None:
            raise BackendUnavailable("the model's stream ended without an end", hint="the server broke off: try again")
        return self.finish


class Runner:
    """Runs problems on a backend under one setting; `cascade` is the backend that later steps ask."""

    def __init__(
        self,
        backend: Backend,
        settings: RunSettings,
        *,
        grader: Grader,
        gate: GateSettings | None = None,
        cascade: Backend | None = None,
        observer: Observer | None = None,
    ) -> None:
        if settings.shape == "sequential" and (settings.extend == "cascade") != (cascade is not None):
            raise InputError("`cascade` needs a second model, and only it does", hint="name it with --cascade SPEC")
        self.backend = backend
        self.settings = settings
        self.grader = grader
        self.cascade = cascade
        self.observer = observer
        self.signal = signal_of(backend, settings)
        if gate is None:
            gate = GateSettings(signal=self.signal, shape=settings.shape, max_steps=settings.max_steps)
        gate.signal.require(replace(self.signal, pooling=gate.signal.pooling), what="the run's steps")
        if gate.shape != settings.shape:
            raise InputError(f"the gate is for {gate.shape} steps, the run is {settings.shape}", hint="--shape")
        self.gate = replace(gate, max_steps=min(gate.max_steps, settings.max_steps))

    async def run(self, problem: Problem, *, settings_digest: str | None = None) -> Run:
        """Run one problem to its stop; raises `BackendError` where the model cannot be asked."""
        text = self.backend.read(problem.problem)
        streaming = self.settings.shape == "streaming"
        walk = _Streaming(self, problem, text) if streaming else _Sequential(self, problem, text)
        await walk.go()
        trace = Trace(
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
            signal=self.signal,
            steps=tuple(walk.steps),
        )
        return Run(trace, tuple(walk.decisions))


class _Walk:
    """One problem's way through the gate."""

    def __init__(self, runner: Runner, problem: Problem, text: str) -> None:
        self.runner = runner
        self.settings = runner.settings
        self.problem = problem
        self.text = text
        self.gate = Gate(runner.gate)
        self.steps: list[Step] = []
        self.decisions: list[Decision] = []

    def hear(self, heard: _Heard, item: Token | Finish) -> Decision | None:
        """Take one item of a stream; the gate's decision where it was a token."""
        if isinstance(item, Finish):
            heard.finish = item
            return None
        token = heard.take(item, self.runner.signal)
        if self.runner.observer is not None:
            self.runner.observer.token(token, step=len(self.steps) + 1)
        return self.gate.feed(token)

    def ended(self, step: Step, decision: Decision) -> bool:
        """Record a step; whether the run is over."""
        if step.entries == 0 and step.tokens and not self.steps:
            raise LogprobsMissing(
                f"{self.runner.backend.model} answered without log-probabilities",
                hint="serve it with log-probabilities: vLLM --max-logprobs 20, llama.cpp and OpenAI top_logprobs",
            )
        self.steps.append(step)
        self.decisions.append(decision)
        if self.runner.observer is not None:
            self.runner.observer.step(step, decision)
        return decision.ends

    def request(self, number: int, messages: tuple[Message, ...], *, continued: bool, probe: bool = False) -> Request:
        settings = self.settings
        effort = EFFORTS[min(number, len(EFFORTS)) - 1] if settings.extend == "effort" else None
        return Request(
            messages=messages,
            max_tokens=min(PROBE_TOKENS, settings.max_tokens) if probe else settings.max_tokens,
            temperature=settings.temperature,
            top_k=settings.top_k,
            seed=settings.seed,
            # The elicitation of an answer draws its own noise: it is no part of the thought.
            key=(f"{self.problem.id}#answer" if probe else self.problem.id, number),
            continue_final=continued,
            effort=effort,
        )

    def step(self, heard: _Heard, *, answer: str | None, tokens: int, model: str | None = None) -> Step:
        finish = heard.finish
        measured = [token for token in heard.tokens if token.entropy is not None]
        logprobs = [token.logprob for token in measured if token.logprob is not None]
        return Step(
            text=heard.text,
            answer=answer,
            correct=self.correct(answer),
            tokens=tokens,
            finish=finish.reason if finish is not None else None,
            model=model,
            prompt_tokens=finish.prompt_tokens if finish is not None else None,
            latency_s=time.monotonic() - heard.begun,
            entropies=tuple(token.entropy for token in measured if token.entropy is not None),
            logprobs=tuple(logprobs) if len(logprobs) == len(measured) else None,
            token_texts=tuple(token.text for token in measured) if len(measured) == len(heard.tokens) else None,
        )

    def correct(self, answer: str | None) -> bool | None:
        """Whether an answer is right; None where there is no answer or nothing to compare it with."""
        if answer is None or self.problem.target is None:
            return None
        return self.runner.grader.grade(answer, self.problem.target)


class _Sequential(_Walk):
    async def go(self) -> None:
        runner, samples = self.runner, list[str | None]()
        for number in range(1, self.settings.max_steps + 1):
            backend = runner.cascade if runner.cascade is not None and number > 1 else runner.backend
            heard = _Heard()
            messages, continued = self.conversation(backend)
            async with _open(backend, self.request(number, messages, continued=continued)) as stream:
                async for item in stream:
                    self.hear(heard, item)
            tokens = heard.finished().tokens
            samples.append(runner.grader.extract(heard.text))
            answer = majority(samples) if self.settings.extend == "vote" else samples[-1]
            step = self.step(heard, answer=answer, tokens=tokens, model=backend.model)
            if self.ended(step, self.gate.end_step(tokens=tokens)):
                break

    def conversation(self, backend: Backend) -> tuple[tuple[Message, ...], bool]:
        """The messages of the next step, and whether the last one is to be continued."""
        prompts = backend.prompts
        ask = Message("user", prompts.ask.format(problem=self.text))
        if not self.steps or self.settings.extend in ("vote", "effort", "cascade"):
            return (ask,), False
        if self.settings.extend == "wait":
            thought = "".join(step.text.partition(prompts.close.strip())[0] for step in self.steps)
            return (ask, Message("assistant", f"{thought}{prompts.wait}")), True
        messages = [ask]
        for step in self.steps:
            messages += [Message("assistant", step.text), Message("user", prompts.refine)]
        return tuple(messages), False


class _Streaming(_Walk):
    async def go(self) -> None:
        runner = self.runner
        ask = Message("user", runner.backend.prompts.think.format(problem=self.text))
        recording = runner.gate.threshold is None
        thought: list[str] = []
        heard = _Heard()
        async with _open(runner.backend, self.request(1, (ask,), continued=False)) as stream:
            async for item in stream:
                decision = self.hear(heard, item)
                if isinstance(item, Token):
                    thought.append(item.text)
                if decision is None or decision.action is Action.CONTINUE:
                    continue
                step = self.step(heard, answer=None, tokens=len(heard.tokens))
                heard = _Heard()
                if decision.ends:
                    # Cancel first: what the model would still say must not be generated.
                    await stream.aclose()
                if decision.ends or recording:
                    step = await self.probed(ask, "".join(thought), step)
                if self.ended(step, decision):
                    return
        self.ended_by_itself(heard)

    def ended_by_itself(self, heard: _Heard) -> None:
        """The model closed its thought itself: what followed the last boundary is the answer, or one more step."""
        heard.finished()
        if not heard.tokens and self.steps:
            return
        answer = self.runner.grader.extract(heard.text if "</think>" in heard.text or not self.steps else "<think>")
        step = self.step(heard, answer=answer, tokens=len(heard.tokens))
        thinking = heard.text.partition(self.runner.backend.prompts.close.strip())[0].strip()
        if self.steps and not thinking:
            # Only the closing tag and the answer: they stand where the last step's probe would.
            last = self.steps.pop()
            decision = self.decisions.pop()
            probe = self.probe(heard, answer=answer, tokens=step.tokens)
            joined = replace(last, answer=answer, correct=step.correct, probe=probe, finish=step.finish)
            self.ended(joined, replace(decision, action=Action.FINISH))
            return
        decision = self.gate.end_step()
        self.ended(step, decision if decision.ends else replace(decision, action=Action.FINISH))

    def probe(self, heard: _Heard, *, answer: str | None, tokens: int) -> Probe:
        """The answer that stands after the thought, with its tokens' signal."""
        bits = [token.entropy for token in heard.tokens if token.entropy is not None]
        logprobs = [token.logprob for token in heard.tokens if token.logprob is not None]
        return Probe(
            answer=answer,
            correct=self.correct(answer),
            tokens=tokens,
            text=heard.text,
            entropies=tuple(bits) or None,
            logprobs=tuple(logprobs) if logprobs and len(logprobs) == len(bits) else None,
        )

    async def probed(self, ask: Message, thought: str, step: Step) -> Step:
        """Close the thought after this step and elicit the answer."""
        backend = self.runner.backend
        closed = Message("assistant", f"{thought}{backend.prompts.close}{backend.prompts.answer}")
        heard = _Heard()
        number = len(self.steps) + 1
        async with _open(backend, self.request(number, (ask, closed), continued=True, probe=True)) as stream:
            async for item in stream:
                if isinstance(item, Finish):
                    heard.finish = item
                else:
                    heard.take(item, self.runner.signal)
        answer = self.runner.grader.extract(backend.prompts.answer + heard.text)
        probe = self.probe(heard, answer=answer, tokens=heard.finished().tokens)
        return replace(step, answer=answer, correct=probe.correct, probe=probe)


@asynccontextmanager
async def _open(backend: Backend, request: Request) -> AsyncIterator[_Closing]:
    """A stream that is closed, and so cancelled at the server, however the block ends."""
    stream = _Closing(backend.stream(request))
    try:
        yield stream
    finally:
        await stream.aclose()


class _Closing:
    """An async iterator whose `aclose` may be called twice, and on iterators that are no generators."""

    def __init__(self, stream: AsyncIterator[Token | Finish]) -> None:
        self._stream = stream
        self._closed = False

    def __aiter__(self) -> _Closing:
        return self

    async def __anext__(self) -> Token | Finish:
        if self._closed:
            raise StopAsyncIteration
        return await anext(self._stream)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            closing = getattr(self._stream, "aclose", None)
            if closing is not None:
                await closing()


def signal_of(backend: Backend, settings: RunSettings) -> Signal:
    """The signal that a run on this backend measures."""
    measured = backend.signal(temperature=settings.temperature, top_k=settings.top_k)
    if settings.shape == "sequential":
        return replace(measured, splitter="completion")
    return replace(measured, splitter=settings.splitter or SPLITTERS[settings.shape])


def majority(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer, the earliest where several are; None where nobody answered."""
    given = [answer for answer in answers if answer is not None]
    return Counter(given).most_common(1)[0][0] if given else None


def equals_replay(run: Run, recorded: Trace) -> bool:
    """Whether a live run is, token for token and bit for bit, the beginning of the recorded trace, with its answer."""
    steps = run.trace.steps
    was = recorded.steps[: len(steps)]
    # A streaming run elicits no answer at the steps that it does not stop at.
    return (
        run.trace.tokens == recorded.tokens_to(len(steps))
        and steps[-1].answer == was[-1].answer
        and all(
            (live.text, live.entropies) == (before.text, before.entropies)
            for live, before in zip(steps, was, strict=True)
        )
    )
