"""Collect the streaming shape from models that have no tags around their thought.

    python -m benchmarks.real.stream --base-url http://127.0.0.1:8301/v1 --tasks word.jsonl --out runs.parquet

The thought is the model's step-by-step text up to its own cue `Answer:`. It is written in one generation and never
interrupted. Afterwards it is cut at sentence or paragraph ends, and at each cut the answer is elicited: the model's
turn is continued from the thought so far and the cue, at the temperature of the run, to the end of the line. So every
cut shows the answer that a run stopped there would give, with its tokens, their entropies and log-probabilities.

The last step's answer is the model's own where it wrote the cue: those tokens came unasked, so their probe has
`prompt_tokens` 0. Where it ended without the cue, or at its limit, the answer is elicited there as well.

Each finished problem is kept at once beside the output; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from justenough.backends.openai import OpenAIBackend, open_openai
from justenough.backends.protocol import Finish, Message, Request
from justenough.backends.registry import Options
from justenough.grading import Grader, Problem, open_grader, read_tasks
from justenough.runner.journal import Journal
from justenough.runner.stream import Generation, opened
from justenough.signal.signal import Signal
from justenough.signal.steps import splitter
from justenough.trace import Probe, Step, Token, Trace
from justenough.trace.files import write_traces

CUE: Final = "Answer:"
_CUE: Final = re.compile(r"(?:^|\n)[*#_` ]*(?:Final )?Answer[*_`]*:")
_ELICIT: Final = f"\n\n{CUE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """What shapes the collection beside model and problem."""

    splitter: str = "sentence"
    min_tokens: int = 8
    """A cut with fewer tokens since the one before is left out."""
    max_tokens: int = 256
    probe_tokens: int = 24
    temperature: float = 0.7
    top_k: int = 20
    seed: int = 0


class Streamer:
    """Runs problems on one backend."""

    def __init__(self, backend: OpenAIBackend, settings: StreamSettings, grader: Grader) -> None:
        self.backend = backend
        self.settings = settings
        self.grader = grader
        measured = backend.signal(temperature=settings.temperature, top_k=settings.top_k)
        self.signal: Signal = replace(measured, splitter=settings.splitter)

    @property
    def digest(self) -> str:
        """SHA-256 of all that shapes a run."""
        shaping = [self.backend.model, self.backend.prompts.think, _ELICIT, repr(self.settings), repr(self.signal)]
        return hashlib.sha256(json.dumps(shaping).encode()).hexdigest()

    async def run(self, problem: Problem) -> Trace:
        """One thought and the answers elicited along it."""
        ask = Message("user", self.backend.prompts.think.format(problem=problem.problem))
        generation = await self._generate(self._request(problem, (ask,), step=1))
        finish = generation.finished()
        end = thought_end([token.text for token in generation.tokens])
        cuts = segments([token.text for token in generation.tokens[:end]], self.settings)
        steps: list[Step] = []
        said = ""
        begin = 0
        for number, stop in enumerate(cuts, 1):
            part = generation.tokens[begin:stop]
            begin = stop
            said += _text(part)
            if number == len(cuts) and end < len(generation.tokens):
                # The model's own answer came unasked: nothing was read again for it.
                own = generation.tokens[end:]
                answer = self.grader.extract(_text(own))
                probe = self._probe(problem, own, answer, tokens=max(len(own), finish.tokens - end), prompt_tokens=0)
            else:
                probe = await self._elicited(problem, ask, said, number)
            steps.append(self._step(part, probe, finish=finish.reason if number == len(cuts) else None))
        steps[0] = replace(steps[0], prompt_tokens=finish.prompt_tokens)
        return Trace(
            id=problem.id,
            task=problem.task,
            family=problem.family,
            group=problem.group,
            model=self.backend.model,
            shape="streaming",
            problem=problem.problem,
            target=problem.target,
            seed=self.settings.seed,
            settings=self.digest,
            signal=self.signal,
            steps=tuple(steps),
        )

    def _request(self, problem: Problem, messages: tuple[Message, ...], *, step: int, probe: bool = False) -> Request:
        return Request(
            messages=messages,
            max_tokens=self.settings.probe_tokens if probe else self.settings.max_tokens,
            temperature=self.settings.temperature,
            top_k=self.settings.top_k,
            seed=self.settings.seed,
            key=(f"{problem.id}#answer" if probe else problem.id, step),
            continue_final=probe,
        )

    async def _generate(self, request: Request, *, line: bool = False) -> Generation:
        """All that is said; with `line`, the generation is cancelled at the end of the first line."""
        generation = Generation()
        async with opened(self.backend, request) as stream:
            async for item in stream:
                if isinstance(item, Finish):
                    generation.finish = item
                    break
                generation.take(item, self.signal)
                if line and generation.text.strip() and "\n" in generation.text.lstrip():
                    generation.finish = Finish(reason="stop", tokens=len(generation.tokens))
                    break
        return generation

    async def _elicited(self, problem: Problem, ask: Message, said: str, number: int) -> Probe:
        closed = Message("assistant", said.rstrip() + _ELICIT)
        generation = await self._generate(self._request(problem, (ask, closed), step=number, probe=True), line=True)
        finish = generation.finished()
        answer = self.grader.extract(f"{CUE} {generation.text.strip()}")
        return self._probe(problem, generation.tokens, answer, tokens=finish.tokens, prompt_tokens=finish.prompt_tokens)

    def _step(self, part: Sequence[Token], probe: Probe, *, finish: str | None) -> Step:
        bits, texts = _measured(part)
        return Step(
            text=_text(part),
            answer=probe.answer,
            correct=probe.correct,
            tokens=len(part),
            finish=finish,
            model=self.backend.model,
            prompt_tokens=0,
            probe=probe,
            entropies=bits,
            logprobs=_logprobs(part),
            token_texts=texts,
        )

    def _probe(
        self,
        problem: Problem,
        generation: Sequence[Token],
        answer: str | None,
        *,
        tokens: int,
        prompt_tokens: int | None,
    ) -> Probe:
        bits, texts = _measured(generation)
        graded = answer is not None and problem.target is not None
        return Probe(
            answer=answer,
            correct=self.grader.grade(answer or "", problem.target or "") if graded else None,
            tokens=tokens,
            prompt_tokens=prompt_tokens,
            text=_text(generation),
            entropies=bits or None,
            logprobs=_logprobs(generation),
            token_texts=texts or None,
        )


def thought_end(texts: Sequence[str]) -> int:
    """How many tokens stand before the model's own cue; all of them where it gave none, or began with it."""
    said = "".join(texts)
    found = _CUE.search(said)
    if found is None:
        return len(texts)
    length = 0
    for index, text in enumerate(texts):
        length += len(text)
        if length > found.start():
            return index if said[: found.start()].strip() else len(texts)
    return len(texts)


def segments(texts: Sequence[str], settings: StreamSettings) -> list[int]:
    """Where the thought is cut, each given by the number of tokens before it; the last cut is the thought's end."""
    watch = splitter(settings.splitter)
    cuts: list[int] = []
    for index, text in enumerate(texts, 1):
        if watch.feed(text) and index - (cuts[-1] if cuts else 0) >= settings.min_tokens:
            cuts.append(index)
    # A few tokens before the end are no step of their own.
    if cuts and len(texts) - cuts[-1] < settings.min_tokens:
        cuts.pop()
    return [*cuts, len(texts)]


def _text(tokens: Sequence[Token]) -> str:
    return "".join(token.text for token in tokens)


def _measured(tokens: Sequence[Token]) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Bits and texts of the tokens that came with log-probabilities."""
    known = [(token.entropy, token.text) for token in tokens if token.entropy is not None]
    return tuple(bits for bits, _ in known), tuple(text for _, text in known)


def _logprobs(tokens: Sequence[Token]) -> tuple[float, ...] | None:
    known = [token for token in tokens if token.entropy is not None]
    found = tuple(token.logprob for token in known if token.logprob is not None)
    return found if found and len(found) == len(known) else None


async def collect(streamer: Streamer, problems: Sequence[Problem], out: Path, *, concurrency: int) -> int:
    """Run the problems that `out`'s journal does not hold yet, and write `out`; returns how many were new."""
    with Journal(out.with_name(out.name + ".part.jsonl"), digest=streamer.digest) as kept:
        waiting = [problem for problem in problems if problem.id not in kept.traces]
        new = len(waiting)
        done = len(problems) - new

        async def work() -> None:
            nonlocal done
            while waiting:
                trace = await streamer.run(waiting.pop(0))
                kept.append(trace)
                done += 1
                right = sum(found.steps[-1].is_correct for found in kept.traces.values())
                print(f"{done}/{len(problems)} problems, {right} right, {len(trace.steps)} cuts", flush=True)

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
        write_traces([kept.traces[problem.id] for problem in problems], out)
    return new


def main() -> None:
    """Collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--grader", default="number")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--splitter", default="sentence")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    settings = StreamSettings(
        splitter=options.splitter,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        seed=options.seed,
    )
    problems = read_tasks(options.tasks, limit=options.limit)
    asyncio.run(_main(options, settings, problems))


async def _main(options: argparse.Namespace, settings: StreamSettings, problems: list[Problem]) -> None:
    backend = open_openai("", Options(base_url=options.base_url, concurrency=options.concurrency))
    grader = open_grader(options.grader)
    try:
        streamer = Streamer(backend, settings, grader)
        new = await collect(streamer, problems, options.out, concurrency=options.concurrency)
        print(f"{len(problems)} problems in {options.out}, {new} of them new", flush=True)
    finally:
        grader.close()
        await backend.close()


if __name__ == "__main__":
    main()
