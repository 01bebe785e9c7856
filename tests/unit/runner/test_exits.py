"""The certificate of layer exits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from justenough.backends.layers.backend import LayerExitBackend
from justenough.backends.layers.leaving import Calm
from justenough.errors import InputError, NotEnoughExamples
from justenough.grading import Exact, read_tasks
from justenough.runner import RunSettings, exits
from justenough.runner.exits import ExitTrial, check_size
from tests.conftest import CHECKPOINT


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitTrial]:
    """Six problems; with the first threshold no token exits, with the second almost every one."""
    monkeypatch.setattr(exits, "GRIDS", {"softmax": (1.5, 0.01)})
    backend = LayerExitBackend(CHECKPOINT, None, concurrency=8, threads=1)
    problems = read_tasks("arithmetic-calibration", limit=6, seed=1)
    settings = RunSettings(max_steps=1, max_tokens=40, seed=1)
    with closing(ExitTrial(backend, problems, grader=Exact(), settings=settings)) as opened:
        yield opened


def test_thresholds_are_compared_with_the_whole_network(trial: ExitTrial) -> None:
    certificate = trial.certify("softmax", risk="answers", level=0.5, confidence=0.95)
    cautious, bold = trial.tried
    assert (cautious.layers, cautious.layers_saved, cautious.differ, cautious.harmed) == (4, 0, 0, 0)
    assert cautious.right == trial.right
    assert cautious.work_saved < 0  # Heads that no token uses cost work.
    assert bold.layers < 2
    assert bold.differ >= 5
    assert bold.harmed <= bold.differ
    assert certificate is not None
    assert (certificate.setting, certificate.n, certificate.risk) == (1.5, 6, 0)
    # Each threshold runs once, whatever is certified with it.
    assert trial.certify("softmax", risk="harm", level=0.5, confidence=0.95) is not None
    assert len(trial.tried) == 2


def test_the_losses_are_those_of_each_problem(trial: ExitTrial) -> None:
    losses = dict(trial.losses("softmax", "harm"))
    whole = [step.is_correct for step in trial.whole]
    assert losses[1.5].tolist() == [0] * 6
    assert all(right or not loss for right, loss in zip(whole, losses[0.01], strict=True))
    assert trial.tried[-1].harmed == losses[0.01].sum()


def test_a_trial_that_cannot_begin_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[ExitTrial] = []
    close = ExitTrial.close

    def noted(trial: ExitTrial) -> None:
        closed.append(trial)
        close(trial)

    monkeypatch.setattr(ExitTrial, "close", noted)
    (problem,) = read_tasks("arithmetic-calibration", limit=1)
    problems = [replace(problem, problem="Who was first?")]
    backend = LayerExitBackend(CHECKPOINT, None, concurrency=1, threads=1)
    with pytest.raises(InputError, match="cannot read"):
        ExitTrial(backend, problems, grader=Exact(), settings=RunSettings(max_steps=1))
    assert len(closed) == 1


def test_too_few_problems_are_refused_before_they_run() -> None:
    check_size(59, level=0.05, confidence=0.95)
    with pytest.raises(NotEnoughExamples, match="even without a loss, 59 are needed") as refused:
        check_size(58, level=0.05, confidence=0.95)
    assert refused.value.needed == 1
    for level, confidence in ((0.0, 0.95), (1.0, 0.95), (0.05, 1.0)):
        with pytest.raises(InputError):
            check_size(100, level=level, confidence=confidence)


def test_the_rule_is_part_of_the_model_s_name() -> None:
    backend = LayerExitBackend(CHECKPOINT, Calm(0.5), threads=1)
    backend.use(None)
    assert backend.model == "justenough-embedded"
