"""A certified threshold from the few labels that it depends on, with the answers judged one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from justenough.calibration.calibration import Calibration
from justenough.calibration.certified import FINE_BITS, RiskControlled
from justenough.calibration.fitting import repeats, require_later_steps
from justenough.calibration.labelled import draw, gathered, stopping_scores
from justenough.gate import Decide
from justenough.stats.lazy import RIGHT, WRONG, lazy_certificate
from justenough.stats.sequence import answers_of_stops
from justenough.trace import Trace, fingerprint_of
from justenough.trace.columns import Columns, Ints


class Question(NamedTuple):
    """One answer that a person must judge."""

    task: str
    id: str
    """The problem's, unique in its task."""
    answer: str


def calibrate_by_asking(
    traces: Iterable[Trace],
    judge: Callable[[Question], bool],
    *,
    method: RiskControlled | None = None,
    n: int | None = None,
    seed: int = 0,
    pooling: str | None = None,
    decide: Decide = "first",
    min_tokens: int = 0,
    patience: int = 1,
) -> Calibration:
    """Certify a threshold as `calibrate` does for `risk`, and ask `judge` only for labels that can change it.

    Threshold and guarantee are those of full labelling. Stopping harms only where the answer differs from the last one,
    so `judge` is asked about nothing else, and never about an answer that is graded in the traces. So few labels cannot
    show how well the signal separates right from wrong, so the verdict is `cannot tell`.

    Raises `NothingCertified` where no threshold can be certified; an error of `judge` ends the work.
    """
    require_later_steps(patience, decide)
    method = method or RiskControlled()
    labelled, steps, prompts, warnings = gathered(traces, pooling=pooling, decide=decide)
    drawn = draw(labelled.one_run_each(seed=seed), n, seed=seed)
    warnings += repeats(labelled, drawn, certified=True)
    runs = drawn.opening if decide == "first" else drawn
    columns = runs.columns
    if (columns.lengths < 2).all():
        raise method.ungraded().failure()
    answers, known = _graded(columns), dict[tuple[int, int], bool]()

    def is_right(problem: int, answer: int) -> bool:
        return judge(Question(columns.tasks[problem], columns.ids[problem], columns.answer_texts[answer]))

    # As in `calibrate`, the certificate for step 1 also holds with a minimum of tokens, which only prevents stops.
    least = 0 if decide == "first" else min_tokens
    scores = stopping_scores(runs, columns.bits, decide=decide, min_tokens=least, patience=patience)
    grid = np.unique(scores[np.isfinite(scores)]) if decide == "first" else FINE_BITS
    last = answers[columns.last()]
    deciding = np.isfinite(scores)
    deciding[columns.last()] = True
    pairs = set(zip(columns.problem_of[deciding].tolist(), answers[deciding].tolist(), strict=True))
    in_full = sum(answer not in (WRONG, RIGHT) for _, answer in pairs)
    stops = answers_of_stops(grid, scores, answers, columns.first)
    threshold = lazy_certificate(stops, last, is_right, max_harm=method.max_harm, error=method.error, judged=known)
    outcome = method.outcome(threshold, len(columns))
    outcome.require()
    first = enumerate(answers[columns.first].tolist())
    opening = [answer == RIGHT if answer in (WRONG, RIGHT) else known.get((row, answer)) for row, answer in first]
    return Calibration(
        method=outcome.method,
        threshold=outcome.threshold,
        decide=decide,
        signal=columns.signal,
        model=columns.models[0],
        task=", ".join(sorted(set(columns.tasks))),
        shape=columns.shape,
        max_steps=steps,
        min_tokens=min_tokens,
        patience=patience,
        labels="asked",
        n=len(drawn),
        n_right=opening.count(True),
        n_wrong=opening.count(False),
        verdict="cannot tell",
        needed=0,
        thresholds={outcome.method: outcome.threshold},
        threshold_outcomes={outcome.method: outcome.reason},
        guarantee=outcome.guarantee,
        max_harm=method.max_harm,
        confidence=method.confidence,
        warnings=tuple(warnings),
        seed=seed,
        rows=len(labelled),
        problems=labelled.problems,
        judged=len(known),
        judged_in_full=in_full,
        fitted_on=tuple(sorted(set(drawn.columns.hashed_ids))),
        data_fingerprint=fingerprint_of(drawn.digests),
        prompts=prompts,
    )


def _graded(columns: Columns) -> Ints:
    """The answer at each checkpoint (m,): `RIGHT` or `WRONG` where that is known, else the number of its text.

    A text without a grade has the grade of the same text elsewhere in its run, unless that text has both grades.
    """
    problems = columns.problem_of.tolist()
    rows = list(zip(problems, columns.answers.tolist(), columns.correct.tolist(), strict=True))
    grades: dict[tuple[int, int], set[int]] = {}
    for problem, answer, grade in rows:
        if grade >= 0 and answer >= 0:
            grades.setdefault((problem, answer), set()).add(grade)

    def code(problem: int, answer: int, grade: int) -> int:
        if grade < 0 and answer >= 0:
            others = grades.get((problem, answer), set())
            if len(others) != 1:
                return answer
            grade = next(iter(others))
        return RIGHT if grade > 0 else WRONG

    return np.array([code(*row) for row in rows], dtype=np.int64)
