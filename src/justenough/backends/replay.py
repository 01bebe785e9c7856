"""`replay:FILE`: recorded traces as a backend; it repeats the recorded tokens and needs no model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from justenough.backends.notation import notation_for
from justenough.backends.protocol import CONTEXT, REFUSED, Finish, Request
from justenough.backends.registry import Options
from justenough.errors import BackendRejected, ContextExceeded, InputError, ProblemRefused
from justenough.prompts import Prompts
from justenough.signal.signal import Signal
from justenough.trace import Probe, Step, Token, Trace
from justenough.trace.files import read_traces


class ReplayBackend:
    """Yields the recorded tokens of each (problem, step); raises `BackendRejected` for a step without a record."""

    def __init__(self, traces: Sequence[Trace], *, concurrency: int = 32) -> None:
        if not traces:
            raise InputError("there is no trace to replay", hint="collect traces first")
        models = {trace.model for trace in traces}
        if len(models) > 1:
            raise InputError(f"the traces come from {len(models)} models", hint="replay the traces of one model")
        self._traces: Mapping[str, Trace] = {trace.id: trace for trace in traces}
        self._signal = traces[0].signal
        self.model = traces[0].model
        self.prompts: Prompts = traces[0].prompts or notation_for(self.model).prompts
        self.concurrency = concurrency

    def signal(self, *, temperature: float, top_k: int) -> Signal:
        """The recorded signal, whatever the arguments are."""
        return self._signal

    def read(self, problem: str) -> str:
        """The problem, unchanged."""
        return problem

    async def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
        """The recorded step of `request.key`; in the streaming shape, all steps from this one on, or its probe."""
        name, number = request.key
        trace = self._traces.get(name.removesuffix("#answer"))
        if trace is None or number > len(trace.steps):
            raise BackendRejected(f"step {number} of {name} was not recorded", status=404, hint="collect more steps")
        if name.endswith("#answer"):
            probe = trace.steps[number - 1].probe
            if probe is None:
                raise BackendRejected(f"step {number} of {trace.id} has no probe", status=404, hint="collect again")
            text = probe.text if probe.text is not None else f"Answer: {probe.answer}"
            yield Token(text=text, entropy=0.0)
            yield Finish(reason="stop", tokens=probe.tokens, prompt_tokens=probe.prompt_tokens)
            return
        steps = trace.steps[number - 1 :] if trace.shape == "streaming" else trace.steps[number - 1 : number]
        total = 0
        for step in steps:
            if step.finish == REFUSED:
                raise ProblemRefused(f"the problem of {name} was outside the language of the model")
            if step.finish == CONTEXT:
                raise ContextExceeded(f"the conversation of step {number} of {name} was longer than the context")
            for token in _tokens(step):
                yield token
            total += step.tokens - step.discarded
        last = steps[-1].probe
        if trace.shape == "streaming" and last is not None and last.prompt_tokens == 0:
            # Nothing was read for it: the model closed its thought itself and answered.
            for token in _answer(last):
                yield token
            total += last.tokens
        # One prompt is read for all that follows it.
        yield Finish(reason=steps[-1].finish or "stop", tokens=total, prompt_tokens=steps[0].prompt_tokens)

    async def close(self) -> None:
        """Do nothing: there is nothing to free."""


def _answer(probe: Probe) -> list[Token]:
    texts, bits = probe.token_texts, probe.entropies
    if texts is None or bits is None or len(texts) != len(bits):
        return [Token(text=probe.text or "", entropy=0.0)]
    rows = zip(texts, bits, probe.logprobs or (None,) * len(texts), strict=True)
    return [Token(text=text, entropy=value, logprob=logprob) for text, value, logprob in rows]


def _tokens(step: Step) -> list[Token]:
    bits, rows = step.entropies, step.top_logprobs
    count = step.entries
    if count is None or (step.token_texts is not None and len(step.token_texts) != count):
        reason = "a step was recorded without the entropies of its tokens"
        raise BackendRejected(reason, status=404, hint="collect again")
    layers = step.extra.get("layers")
    # Without token texts, the last token has the whole text.
    texts = step.token_texts or ("",) * (count - 1) + (step.text,)
    return [
        Token(
            text=text,
            entropy=bits[index] if bits is not None else None,
            top_logprobs=rows[index] if rows is not None else None,
            logprob=step.logprobs[index] if step.logprobs is not None else None,
            # These were recorded for the whole step; the first token carries them.
            discarded=0 if index else step.discarded,
            layers=None if not isinstance(layers, int) else 0 if index else layers,
        )
        for index, text in enumerate(texts[:count])
    ]


def open_replay(model: str, options: Options) -> ReplayBackend:
    """`replay:FILE`."""
    if not model:
        raise InputError("replay needs a file", hint="--model replay:traces.parquet")
    return ReplayBackend(read_traces(Path(model)).traces, concurrency=options.concurrency or 32)
