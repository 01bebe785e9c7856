"""The run of one problem as one long thought, of which segments are steps."""

from __future__ import annotations

from dataclasses import replace

from justenough.backends.protocol import CONTEXT, Finish, Message
from justenough.errors import ContextExceeded
from justenough.gate import Action, Decision
from justenough.grading import Problem
from justenough.runner.stream import Generation, opened
from justenough.runner.walk import Context, Walk
from justenough.signal.thought import Follower
from justenough.trace import Probe, Step, Token


class Streaming(Walk):
    """A step is a segment of one long thought."""

    def __init__(self, context: Context, problem: Problem) -> None:
        super().__init__(context, problem)
        self.follower = Follower(context.backend.prompts.thought)
        self.thought: list[str] = []

    @property
    def question(self) -> Message:
        """The message with the problem; raises `ProblemRefused` for a problem outside the model's language."""
        return Message("user", self.context.backend.prompts.think.format(problem=self.text))

    async def go(self) -> None:
        """Follow the thought; cut it when the gate or the live rule stops."""
        recording = self.context.gate.threshold is None and self.watch is None
        generation = self.generation()
        stop: tuple[Step, Decision] | None = None
        async with opened(self.context.backend, self.request(1, (self.question,), continued=False)) as stream:
            async for item in stream:
                decision = self.follow(generation, item)
                if decision is None:
                    continue
                step = self.step(generation, answer=None, tokens=len(generation.tokens))
                generation = self.generation()
                if not decision.ends and (recording or (self.watch is not None and self.watch.probes_next)):
                    step = await self.probed(step)
                decision = self.ruled(step, decision)
                if decision.ends:
                    stop = step, decision
                    break
                self.ended(step, decision)
        if stop is not None:
            # The stream is closed: the model generates no more of the thought.
            self.ended(await self.answered(stop[0]), stop[1])
            return
        self.ended_by_itself(generation)
        # One request generated all segments, and its prompt was read once.
        if generation.finish is not None and (tokens := generation.finish.prompt_tokens) is not None:
            self.steps = [replace(step, prompt_tokens=tokens if not at else 0) for at, step in enumerate(self.steps)]

    def generation(self) -> Generation:
        """The tokens of a new step."""
        rule = self.context.rule
        return Generation(rows=[] if rule is not None and rule.needs_rows else None)

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
            joined = with_trial(joined, last.probe) if self.watch is not None else joined
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

    async def answered(self, step: Step) -> Step:
        """The last step of a cut thought with its answer, which some live rules have generated anew after the probe."""
        if step.probe is None:
            return await self.probed(step)
        if self.context.rule is None or not self.context.rule.again:
            return step
        final = await self.probed(step)
        return final if final.finish == CONTEXT else with_trial(final, step.probe)

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


def with_trial(step: Step, trial: Probe | None) -> Step:
    """The step with the tokens of a probe whose answer another one has replaced."""
    return step if trial is None else replace(step, extra={**step.extra, "trial": trial.tokens})
