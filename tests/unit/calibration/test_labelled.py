"""Where the gate may stop recorded runs: the columns agree with the gate itself."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from justenough.calibration.labelled import checkpoints_of, gathered, split
from justenough.gate import GateSettings, replay
from justenough.trace import Step
from tests.builders import SIGNAL, step, trace

bits = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
steps = st.builds(
    lambda entropies, correct, extra: step(*entropies, correct=correct, tokens=len(entropies) + extra),
    st.lists(bits, min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from([0, 0, 0, 1]),
)


@given(
    runs=st.lists(st.lists(steps, min_size=1, max_size=4), min_size=1, max_size=6),
    threshold=bits,
    every=st.booleans(),
    patience=st.integers(1, 3),
    min_tokens=st.integers(0, 8),
    max_steps=st.integers(1, 5),
)
def test_harm_and_rescue_are_those_of_the_gate(
    runs: list[list[Step]], threshold: float, every: bool, patience: int, min_tokens: int, max_steps: int
) -> None:
    # One run can be measured for certain.
    traces = [trace(*one, id=str(number)) for number, one in enumerate([*runs, [step(0.5), step(0.5)]])]
    settings = GateSettings(
        threshold=threshold,
        signal=SIGNAL,
        decide="every" if every else "first",
        max_steps=max_steps,
        min_tokens=min_tokens,
        patience=patience if every else 1,
    )
    labelled = gathered(traces, max_steps=max_steps, decide="every").labelled
    assume(len(labelled) == len(traces))
    checkpoints = checkpoints_of(labelled, decide=settings.decide, min_tokens=min_tokens, patience=settings.patience)
    assert checkpoints is not None
    harms, rescues = checkpoints.counts(np.array([threshold]))
    stopped = [bool(one.steps[replay(one, settings)[-1].step - 1].correct) for one in traces]
    final = [bool(one.steps[min(max_steps, len(one.steps)) - 1].correct) for one in traces]
    assert harms.tolist() == [sum(not at and last for at, last in zip(stopped, final, strict=True))]
    assert rescues.tolist() == [sum(at and not last for at, last in zip(stopped, final, strict=True))]


def test_all_runs_of_a_problem_are_in_the_same_part() -> None:
    runs = [trace(step(0.5), step(0.1), id=f"p-{at}", seed=seed) for at in range(30) for seed in range(at % 4 + 1)]
    labelled = gathered(runs).labelled
    first, rest = split(labelled, 20, seed=1)
    assert 20 <= len(first) < 24
    assert len(first) + len(rest) == len(runs)
    assert not set(first.columns.hashed_ids) & set(rest.columns.hashed_ids)
    assert split(labelled, 20, seed=2)[0].columns.hashed_ids.tolist() != first.columns.hashed_ids.tolist()
