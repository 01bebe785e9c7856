import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from justenough.stats.lazy import NO_STOP, RIGHT, WRONG, lazy_certificate
from justenough.stats.sequence import harm_controlled

Ints = NDArray[np.int64]


def right(truth: Ints, problem: int, answer: int) -> bool:
    return answer == RIGHT or (answer != WRONG and bool(truth[problem] == answer))


def by_full_labels(
    grid: NDArray[np.float64], answers: Ints, last: Ints, truth: Ints, *, max_harm: float, error: float
) -> float | None:
    """The same certificate with every answer graded."""
    last_right = np.array([right(truth, problem, answer) for problem, answer in enumerate(last.tolist())])
    harms = [
        sum(
            answer != NO_STOP and not right(truth, problem, answer) and bool(last_right[problem])
            for problem, answer in enumerate(row)
        )
        for row in answers.tolist()
    ]
    return harm_controlled(grid, np.array(harms, dtype=np.float64), len(last), max_harm=max_harm, error=error)


@given(st.data())
def test_the_threshold_is_that_of_full_labelling(data: st.DataObject) -> None:
    n = data.draw(st.integers(5, 60))
    settings = data.draw(st.integers(1, 8))
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    answers = rng.choice([NO_STOP, WRONG, RIGHT, 0, 1, 2], size=(settings, n), p=[0.3, 0.05, 0.05, 0.45, 0.1, 0.05])
    last = rng.choice([WRONG, RIGHT, 0, 1], size=n, p=[0.05, 0.1, 0.7, 0.15])
    truth = rng.choice([0, 1, 2, 3], size=n, p=[0.8, 0.1, 0.05, 0.05])
    max_harm, error = data.draw(st.floats(0.05, 0.5)), data.draw(st.floats(0.01, 0.4))
    grid = np.arange(settings, dtype=np.float64)
    questions: list[tuple[int, int]] = []

    def judge(problem: int, answer: int) -> bool:
        questions.append((problem, answer))
        return right(truth, problem, answer)

    rows = list(zip(grid.tolist(), answers, strict=True))
    judged: dict[tuple[int, int], bool] = {}
    threshold = lazy_certificate(rows, last, judge, max_harm=max_harm, error=error, judged=judged)
    assert threshold == by_full_labels(grid, answers, last, truth, max_harm=max_harm, error=error)
    assert len(questions) == len(set(questions)) == len(judged)
    # Only where a stopped answer differs from the last one.
    assert all(((answers[:, p] != last[p]) & (answers[:, p] != NO_STOP)).any() for p, _ in questions)
    assert all(answer not in (WRONG, RIGHT) for _, answer in questions)


def test_three_thousand_problems_take_a_few_dozen_labels() -> None:
    rng = np.random.default_rng(0)
    n, grid = 3000, np.linspace(0, 1, 40)
    score, truth = rng.random(n), np.zeros(n, dtype=np.int64)
    first = np.where(rng.random(n) < 0.2 * score, 1, 0)
    last = np.where((first == 1) & (rng.random(n) < 0.3), 1, 0)
    answers = np.where(score[None, :] <= grid[:, None], first[None, :], NO_STOP)
    labels: list[tuple[int, int]] = []

    def judge(problem: int, answer: int) -> bool:
        labels.append((problem, answer))
        return right(truth, problem, answer)

    rows = list(zip(grid.tolist(), answers, strict=True))
    threshold = lazy_certificate(rows, last, judge, max_harm=0.01, error=0.05, judged={})
    assert threshold == by_full_labels(grid, answers, last, truth, max_harm=0.01, error=0.05)
    assert threshold is not None
    # 21 harms at 1 % would fail; each takes two answers, one of which is the last one.
    assert 20 <= len({problem for problem, _ in labels}) <= 60
    assert len(labels) == len(set(labels)) <= 120


def test_where_nothing_can_be_certified_or_nothing_differs_no_label_is_asked_for() -> None:
    def judge(problem: int, answer: int) -> bool:
        raise AssertionError((problem, answer))

    same = np.zeros(100, dtype=np.int64)
    assert lazy_certificate([(0.5, 1 + same[:20])], same[:20], judge, max_harm=0.05, error=0.05, judged={}) is None
    assert lazy_certificate([(0.5, same)], same, judge, max_harm=0.05, error=0.05, judged={}) == 0.5
