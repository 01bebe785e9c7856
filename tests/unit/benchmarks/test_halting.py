"""Rules on distributions of answers, by hand."""

from __future__ import annotations

import gzip
import json
from itertools import product
from pathlib import Path

import pytest

from benchmarks import halting, timing
from benchmarks.halting import TRUTH, Cut, converged, halted, meaning, read


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("(9*sqrt(23))/23", "\\frac{9 \\sqrt{23}}{23}"),
        ("9/(sqrt(23))", "\\frac{9 \\sqrt{23}}{23}"),
        ("1311/2017", "\\frac{1311}{2017}"),
        ("2**10", "1024"),
        ("-984", "-(900+84)"),
    ],
)
def test_equal_values_are_one_answer(answer: str, truth: str) -> None:
    assert meaning(answer) == meaning(truth)


@pytest.mark.parametrize("answer", ["Eq(1, 1)", "x", "1/0", "2**99999", "(((", "__import__('os')", "sqrt(-1)", ""])
def test_what_has_no_value_stands_for_itself(answer: str) -> None:
    assert meaning(answer) == answer


def cut(tokens: int, **shares: float) -> Cut:
    return Cut(tokens, shares, shares.get(TRUTH, 0.0), 512)


SURE_THEN_DOUBTFUL = [
    cut(1, wrong=1.0),
    cut(2, wrong=0.5, right=0.5),
    cut(3, right=1.0),
    cut(4, right=1.0),
]


def test_entropy_in_bits() -> None:
    assert [one.entropy for one in SURE_THEN_DOUBTFUL] == [0.0, 1.0, 0.0, 0.0]


def test_halting_at_once_and_twice_in_a_row_pays_for_every_forced_answer() -> None:
    assert halted(SURE_THEN_DOUBTFUL, 0.5, consecutive=1) == (0.0, 1, 512)
    assert halted(SURE_THEN_DOUBTFUL, 0.5) == (1.0, 4, 4 * 512)
    # The entropy must be below the threshold.
    assert halted(SURE_THEN_DOUBTFUL, 0.0, consecutive=1) == (1.0, 4, 4 * 512)


@pytest.mark.parametrize("agreeing", [2, 3])
def test_convergence_is_the_mean_over_every_way_to_draw(agreeing: int) -> None:
    cuts = [cut(1, a=0.3, right=0.7), cut(2, a=0.6, right=0.4), cut(5, a=0.2, right=0.5, b=0.3), cut(7, right=1.0)]
    right = tokens = forced = 0.0
    for answers in product(*[one.shares for one in cuts]):
        chance = 1.0
        for one, answer in zip(cuts, answers, strict=True):
            chance *= one.shares[answer]
        ends = [at for at in range(agreeing - 1, len(cuts)) if len(set(answers[at - agreeing + 1 : at + 1])) == 1] or [
            len(cuts) - 1
        ]
        right += chance * (answers[ends[0]] == TRUTH)
        tokens += chance * cuts[ends[0]].tokens
        forced += chance * (ends[0] + 1)
    assert tuple(converged(cuts, agreeing)) == pytest.approx((right, tokens, forced))


def test_the_whole_runs_and_writes_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    path = tmp_path / "histograms.jsonl.gz"
    rows = [
        {
            "qid": problem,
            "thinking_token_cutoff": 2048 * number,
            "ground_truth": "\\frac{1}{2}",
            "answers": {"1/2": number, "2/4": 1, "7": 17 - number},
        }
        for problem in (0, 1)
        for number in range(1, 17)
    ]
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in reversed(rows))
    cuts = read(path)[1]
    assert [one.tokens for one in cuts] == [2048 * number for number in range(1, 17)]
    assert [one.right for one in cuts] == pytest.approx([(number + 1) / 18 for number in range(1, 17)])
    monkeypatch.setattr("sys.argv", ["halting", str(path)])
    halting.main()
    shown = capsys.readouterr().out
    assert json.loads((tmp_path / "halting.json").read_text())["whole"] == pytest.approx(17 / 18)
    assert "right in 94.4 %; 2 problems" in shown
