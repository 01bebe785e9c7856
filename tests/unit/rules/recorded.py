"""Recorded steps as rivals look at them: streams with probes, completions with a thought, samples of a vote."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from justenough.rules.rivals import RIVALS
from justenough.rules.rules import open_rule
from justenough.trace import Json, Probe, Step, Trace
from tests.builders import step, trace

CLOSING = ("</think>", "Answer", ": ")


def streamed(
    answer: str | None,
    bits: Sequence[float] = (0.0,),
    *,
    sure: float = 1.0,
    text: str | None = None,
    right: bool = False,
    extra: dict[str, Json] | None = None,
) -> Step:
    """Ten tokens of thought and four of elicitation; `sure` is the probability of each token of the answer."""
    probe = Probe(
        answer=answer,
        correct=None if answer is None else right,
        tokens=4,
        text=answer if text is None else text,
        entropies=tuple(bits),
        logprobs=tuple(math.log(sure) for _ in bits),
        extra=extra or {},
    )
    return replace(step(0.9, tokens=10, answer=answer, correct=probe.correct), probe=probe)


def streaming(*steps: Step) -> Trace:
    return trace(*steps, shape="streaming")


def converging(n: int, *, seed: int = 0, steps: int = 12) -> list[Trace]:
    """Streams whose answer changes at first and is unsure, then stays and is sure; one in five never becomes right."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        settled = int(rng.integers(2, steps - 3)) if number % 5 else steps
        parts = []
        for place in range(steps):
            right = place >= settled
            bits, sure = (0.1, 0.97) if right else (0.9, 0.6)
            one = streamed(
                "7" if right else f"{place}",
                (max(0.0, float(rng.normal(bits, 0.1))),) * 2,
                sure=float(np.clip(rng.normal(sure, 0.02), 0.01, 0.999)),
                right=right,
            )
            parts.append(replace(one, text="so" if right else "wait, but no", tokens=40))
        made.append(replace(streaming(*parts), id=str(number)))
    return made


def whole(answer: str, bits: Sequence[float], *, tail: str = "") -> Step:
    """A completion whose thought has two unsure tokens, then the cue, then one token for each of `bits`."""
    texts = ("<think>", "so", *CLOSING, *([answer, tail] if len(bits) == 2 else [answer]))
    entropies = (3.0, 3.0, 0.0, 0.0, 0.0, *bits)
    return replace(
        step(*entropies, answer=answer, text="".join(texts)),
        token_texts=texts,
        logprobs=tuple(-value for value in entropies),
    )


def stop(name: str, made: Trace) -> tuple[int, int]:
    stopped = open_rule(name, others=RIVALS).replay(made)
    return stopped.step, stopped.tokens


def sample(answer: str, confidences: Sequence[float], *, right: bool = False) -> Step:
    """One token for each confidence, with two entries that give it."""
    rows = [(-value, -value) for value in confidences]
    made = step(answer="majority", correct=False, top_logprobs=rows)
    return replace(made, extra={"sample": answer, "sample_correct": right})
