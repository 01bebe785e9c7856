"""Evaluations and hostile traces that the report's tests write pages of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import pytest

from justenough.calibration.calibration import Calibration, calibrate
from justenough.evaluation import Evaluation, evaluate
from justenough.evaluation.draws import calibration_sizes
from justenough.gate import Decide
from justenough.report import budget, data, write_report
from justenough.report.data import Contents, contents
from justenough.trace import Json, Probe, Trace
from tests.builders import DECIDER, population, step, trace

EVIL = (
    "</script><script>document.title = 'run'</script><img src=x onerror=\"document.title='run'\"> {{ data }} | \x1b[31m"
)

DEMO: Mapping[str, Json] = {
    "live": {
        "problems": 40,
        "equal_to_replay": 39,
        "seconds_gated": 2.5,
        "seconds_full": 10.0,
        "tokens_gated": 4321,
        "tokens_full": 9876,
        "right_gated": 37,
        "right_full": 36,
    },
    "recommended": {"threshold": 0.25, "pooling": "sum", "decide": "every", "labels": 120, "max_loss": 0.01},
    "draw_percentile": 0.625,
    "siblings": {
        "overconfident": {
            "verdict": "weak",
            "advisable": False,
            "cohens_d": 1.18,
            "auroc": 0.771,
            "auroc_within_groups": 0.552,
            "problems": 300,
            "accuracy_first": 0.463,
        }
    },
}


class Case(NamedTuple):
    """What `write_report` takes."""

    evaluation: Evaluation
    traces: list[Trace]
    calibration: Calibration | None


def worded(traces: Sequence[Trace]) -> list[Trace]:
    """The traces with a text for each token, and families."""
    traces_with_words: list[Trace] = []
    for number, original in enumerate(traces):
        length = 1 + number % 3
        steps = tuple(
            replace(
                part,
                # Some lose confidence again at step 2.
                entropies=((0.9,) if at == 1 and number % 3 else tuple(part.entropies or ())) * length,
                token_texts=("so ",) * length,
                tokens=length,
            )
            for at, part in enumerate(original.steps)
        )
        family = ("sums", "products")[number % 2]
        traces_with_words.append(replace(original, family=family, problem=f"{number}+{number}", steps=steps))
    return traces_with_words


def hostile(number: int) -> Trace:
    """A trace each of whose texts tries to be markup, and whose later step is unanswered."""
    answer_step = replace(step(0.4, 1.7, answer=EVIL, text=EVIL), token_texts=(EVIL, "<b>"))
    return replace(
        trace(answer_step, step(0.1, answer=None, correct=None), id=f"{EVIL}{number}", group=EVIL),
        family=f"{EVIL}{number % 2}",
        problem=EVIL,
        target=EVIL,
    )


def calibrated(
    n: int = 120, *, decide: Decide = "first", patience: int = 1, min_tokens: int = 0, max_steps: int = 4
) -> Case:
    """A population with hostile traces in it, and a calibration from others."""
    traces = population(60, seed=9)
    # Without a certificate, a gate that decides on every step must be forced.
    forced = decide == "every"
    fitted = calibrate(traces, decide=decide, patience=patience, min_tokens=min_tokens, force=forced)
    traces = [hostile(number) for number in range(6)] + worded(population(n, steps=4))
    calibration = replace(fitted, fitted_on=(), max_steps=max_steps)
    return Case(evaluate(traces, calibration=calibration, draws=6, resamples=60), traces, calibration)


def with_decider() -> Case:
    """A decider in place of the entropy, which also gives up."""
    fitted = calibrate(population(60, seed=9), decide="every", force=True)
    calibration = replace(
        fitted,
        method="decider",
        threshold=0.1,
        thresholds={**fitted.thresholds, "decider": 0.1},
        decider=DECIDER,
        outlook=replace(DECIDER, intercept=0.5),
        give_up=0.2,
        max_steps=4,
        fitted_on=(),
    )
    traces = worded(population(80, steps=4))
    return Case(evaluate(traces, calibration=calibration, draws=6, resamples=60), traces, calibration)


def uncalibrated() -> Case:
    """Without a calibration, the figures are means over draws."""
    traces = worded(population(60))
    return Case(evaluate(traces, draws=6, resamples=60), traces, None)


def one_step() -> Case:
    """Nothing can be saved."""
    traces = population(60, steps=1)
    return Case(evaluate(traces, draws=2, resamples=60), traces, None)


def stand_in() -> Case:
    """Another signal than entropy, recorded as one number a step, for some problems not at all."""
    traces = [
        replace(
            each,
            signal=replace(each.signal, kind="1 - <i>softmax</i>", top_k=None),
            steps=tuple(
                replace(part, uncertainty=None if number % 9 == 8 else part.entropies[0], entropies=None)
                for part in each.steps
                if part.entropies
            ),
        )
        for number, each in enumerate(population(60))
    ]
    return Case(evaluate(traces, draws=2, resamples=60), traces, None)


def without_signal() -> Case:
    """No step has a signal, so no threshold can be fitted."""
    traces = [
        replace(one, steps=tuple(replace(part, entropies=None) for part in one.steps))
        for one in population(60, steps=3)
    ]
    return Case(evaluate(traces, draws=2, resamples=60), traces, None)


def never_stops() -> Case:
    """A calibration without a threshold, all answers right."""
    fitted = replace(calibrate(population(60, seed=9)), threshold=None, fitted_on=())
    traces = [each for each in population(80) if each.steps[0].is_correct]
    return Case(evaluate(traces, calibration=fitted, draws=2, resamples=60), traces, fitted)


def streamed() -> Case:
    """Thoughts in one stream, with an answer elicited at each step; one has markup as its texts."""

    def as_stream(one: Trace) -> Trace:
        steps = []
        for part in one.steps:
            probe = Probe(answer=part.answer, correct=part.correct, tokens=5)
            steps.append(replace(part, tokens=40, entropies=tuple(part.entropies or ()) * 40, probe=probe))
        return replace(one, shape="streaming", steps=tuple(steps), problem=f"problem {one.id}")

    fitted = calibrate([as_stream(one) for one in population(60, seed=9, steps=6)], decide="every", force=True)
    calibration = replace(fitted, fitted_on=())
    evil = replace(population(1, steps=6)[0], id=EVIL, steps=tuple(step(0.4, answer=EVIL) for _ in range(6)))
    traces = [replace(as_stream(evil), problem=EVIL), *(as_stream(one) for one in population(80, steps=6))]
    return Case(evaluate(traces, calibration=calibration, draws=2, resamples=60), traces, calibration)


CASES: dict[str, Callable[[], Case]] = {
    "calibrated": calibrated,
    "decider": with_decider,
    "uncalibrated": uncalibrated,
    "one step": one_step,
    "stand-in": stand_in,
    "never stops": never_stops,
    "without signal": without_signal,
    "streamed": streamed,
}
CASES = {name: cache(make) for name, make in CASES.items()}


@contextmanager
def few_draws() -> Iterator[None]:
    """Reports with few draws of sizes, and few draws and totals of the budget: these are most of a report's work."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(data, "calibration_sizes", partial(calibration_sizes, draws=20))
        patched.setattr(budget, "DRAWS", 2)
        patched.setattr(budget, "POINTS", 5)
        yield


def contents_of(case: Case, *, demo: Mapping[str, Json] | None = None) -> Contents:
    """The data of the case's report."""
    return contents(
        case.evaluation, case.traces, calibration=case.calibration, command="justenough report x", demo=demo or {}
    )


def written(case: Case, path: Path, *, demo: Mapping[str, Json] | None = None) -> str:
    """The case's report in the form that the suffix selects."""
    write_report(
        case.evaluation, case.traces, path, calibration=case.calibration, command="justenough report x", demo=demo
    )
    return path.read_text(encoding="utf-8")
