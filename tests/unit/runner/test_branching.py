"""Samples that branch: where they begin, what they pay, and how they end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from justenough.backends.protocol import Message, Request
from justenough.errors import InputError
from justenough.gate import Reason
from justenough.grading import Exact, Problem
from justenough.rules.votes import Vote
from justenough.runner import Branching, Run, Runner, RunSettings, branching_named, majority
from justenough.runner.branching import Branch, next_branch
from justenough.runner.collect import collect, settings_digest
from justenough.runner.spending import Spender
from justenough.toy.backend import EmbeddedBackend
from justenough.trace import Step
from tests.fakes import ScriptedBackend

PROBLEM = Problem(id="p", problem="1+2", target="3")
EAGER = Branching(threshold=1.0)
FIRST = [("a", 0.1), ("b", 2.0), ("\n\n", 0.1), ("c", 1.5), ("Answer: 4", 0.1)]


def step(*tokens: tuple[str, float], prefix: str = "", branch: tuple[int, int] | None = None) -> Step:
    texts = tuple(text for text, _ in tokens)
    return Step(
        text=prefix + "".join(texts),
        tokens=len(tokens),
        entropies=tuple(bits for _, bits in tokens),
        token_texts=texts,
        extra={} if branch is None else {"branch": list(branch)},
    )


def script(request: Request) -> list[tuple[str, float]]:
    """A first sample with two uncertain tokens; a branch is right and has one more uncertain token behind its own."""
    if not request.continue_final:
        return FIRST
    return [("d", 2.0), ("e", 1.2 if request.key[1] == 2 else 0.1), ("Answer: 3", 0.1)]


def run(backend: ScriptedBackend, *, max_steps: int = 9, branching: Branching = EAGER) -> Run:
    settings = RunSettings(extend="branch", max_steps=max_steps, branching=branching)
    return asyncio.run(Runner(backend, settings, grader=Exact()).run(PROBLEM))


def test_the_earliest_uncertain_token_branches_first() -> None:
    first = step(*FIRST)
    assert next_branch([first], EAGER) == Branch(1, 1, 1, "a")
    second = step(("x", 3.0), ("y", 3.0), ("z", 0.0), prefix="a", branch=(1, 1))
    # The first token of a branch does not branch again; its second one is the third of the sample.
    assert next_branch([first, second], EAGER) == Branch(2, 1, 2, "ax")
    third = step(("z", 0.0), prefix="ax", branch=(2, 1))
    assert next_branch([first, second, third], EAGER) == Branch(1, 3, 3, "ab\n\n")
    assert next_branch([first, second, third, step(("z", 0.0), branch=(1, 3))], EAGER) is None


def test_a_token_at_the_threshold_is_not_uncertain() -> None:
    assert next_branch([step(("a", 1.0))], EAGER) is None


def test_a_token_opens_as_many_branches_as_the_width() -> None:
    steps = [step(("a", 2.0))]
    for _ in range(3):
        assert next_branch(steps, Branching(threshold=1.0, width=3)) == Branch(1, 0, 0, "")
        steps.append(step(("b", 2.0), branch=(1, 0)))
    assert next_branch(steps, Branching(threshold=1.0, width=3)) is None


def test_by_paragraph_only_the_first_uncertain_token_of_each_paragraph_branches() -> None:
    gated = Branching(threshold=1.0, by_paragraph=True)
    steps = [step(("a", 2.0), ("b", 2.0), ("\n\n", 0.0), ("c", 0.5), ("d", 2.0), ("e", 2.0))]
    assert next_branch(steps, gated) == Branch(1, 0, 0, "")
    steps.append(step(("a", 2.0), ("b", 2.0), ("\n\n", 0.0), ("c", 2.0), branch=(1, 0)))
    assert next_branch(steps, gated) == Branch(2, 3, 3, "ab\n\n")
    steps.append(step(("c", 2.0), prefix="ab\n\n", branch=(2, 3)))
    assert next_branch(steps, gated) == Branch(1, 4, 4, "ab\n\nc")


def test_without_the_texts_of_the_tokens_nothing_branches() -> None:
    assert next_branch([Step(text="a", tokens=1, entropies=(3.0,))], EAGER) is None


def test_names_of_branchings() -> None:
    assert branching_named("eager") == Branching(threshold=2.0)
    assert branching_named("eager:0.5") == Branching(threshold=0.5)
    assert branching_named("entropy-gated:1:4") == Branching(threshold=1.0, width=4, by_paragraph=True)
    for wrong in ("", "eagr", "eager:x", "eager:1:2", "eager:nan", "eager:-1", "entropy-gated:1:0"):
        with pytest.raises(InputError):
            branching_named(wrong)


def test_settings_refuse_a_branching_that_cannot_work() -> None:
    for settings in ({"extend": "branch"}, {"branching": EAGER}):
        with pytest.raises(InputError, match="only it does"):
            RunSettings(**settings)
    with pytest.raises(InputError, match="temperature 0"):
        RunSettings(extend="branch", branching=EAGER, temperature=0.0)


def test_a_branch_continues_the_same_beginning_and_pays_only_what_is_new() -> None:
    backend = ScriptedBackend(script)
    steps = run(backend).trace.steps
    assert [request.messages[-1] for request in backend.requests[1:]] == [
        Message("assistant", prefix) for prefix in ("a", "ad", "ab\n\n")
    ]
    assert [request.continue_final for request in backend.requests] == [False, True, True, True]
    assert [step.text for step in steps] == [
        "ab\n\ncAnswer: 4",
        "adeAnswer: 3",
        "addeAnswer: 3",
        "ab\n\ndeAnswer: 3",
    ]
    assert [step.tokens for step in steps] == [5, 3, 3, 3]
    assert sum(step.tokens for step in steps) == backend.generated
    assert [step.extra.get("branch") for step in steps] == [None, [1, 1], [2, 1], [1, 3]]


def test_the_samples_vote() -> None:
    made = run(ScriptedBackend(script))
    assert [step.extra["sample"] for step in made.trace.steps] == ["4", "3", "3", "3"]
    assert [step.answer for step in made.trace.steps] == ["4", "4", "3", "3"]
    assert made.trace.steps[-1].correct
    assert Vote(samples=2).replay(made.trace).correct is False
    assert Vote(samples=3).replay(made.trace).correct


def test_a_run_ends_where_no_token_is_uncertain() -> None:
    sure = ScriptedBackend(lambda _: [("Answer: 3", 0.1)])
    made = run(sure)
    assert len(made.trace.steps) == len(sure.requests) == 1
    assert made.decisions[-1].reason == Reason.MAX_STEPS
    assert len(run(ScriptedBackend(script), max_steps=2).trace.steps) == 2


def test_the_limit_is_that_of_the_whole_completion() -> None:
    backend = ScriptedBackend(script)
    settings = RunSettings(extend="branch", branching=EAGER, max_tokens=6)
    asyncio.run(Runner(backend, settings, grader=Exact()).run(PROBLEM))
    assert [request.max_tokens for request in backend.requests] == [6, 5, 4, 3]


def test_a_finished_collection_asks_for_nothing_again(tmp_path: Path) -> None:
    settings = RunSettings(extend="branch", max_steps=9, branching=EAGER)
    results = []
    for _ in range(2):
        backend = ScriptedBackend(script)
        result = asyncio.run(collect([PROBLEM], tmp_path / "t.jsonl", backend=backend, settings=settings))
        results.append((list(result.traces), len(backend.requests)))
    assert results[0][1] == 4
    assert results[1] == (results[0][0], 0)


def test_under_a_budget_the_unsure_problems_get_what_the_others_leave(tmp_path: Path) -> None:
    def by_problem(request: Request) -> list[tuple[str, float]]:
        sure = request.key[0] == "sure"
        return [("Answer: 3", 0.1)] if sure else [("a", 0.1), ("b", 1.5), ("Answer: 4", 1.5)]

    problems = [Problem(id=name, problem="1+2", target="3") for name in ("sure", "unsure")]
    for total in (4, 9, 100):
        backend = ScriptedBackend(by_problem)
        settings = RunSettings(extend="branch", max_steps=4, max_tokens=8, branching=EAGER)
        runner = Runner(backend, settings, grader=Exact())
        digest = settings_digest(backend, settings, grader="exact")
        spender = Spender(runner, digest=digest, policy="uniform", expectation=None, concurrency=1)
        result = asyncio.run(spender.spend(problems, tmp_path / f"{total}.jsonl", total=total))
        assert result.spent == backend.generated <= total
        sure, unsure = result.traces
        assert len(sure.steps) == 1
        assert len(unsure.steps) == {4: 1, 9: 2, 100: 4}[total]
        assert sum(step.tokens for trace in result.traces for step in trace.steps) <= result.spent
        again = asyncio.run(spender.spend(problems, tmp_path / f"{total}.jsonl", total=total))
        assert again.traces == result.traces


def test_without_branches_the_settings_have_the_digest_that_they_always_had() -> None:
    digest = settings_digest(ScriptedBackend(script), RunSettings(), grader="exact")
    assert digest == "1ccc4756f0e97441fc6e83879f91521f7f254a7e2968eda9bbf6fdc02cd1e9a1"


def test_the_embedded_model_continues_its_own_beginning() -> None:
    problem = Problem(id="r", problem="5821%7", target="4")
    backend = EmbeddedBackend(concurrency=2)
    settings = RunSettings(extend="branch", max_steps=4, branching=Branching(threshold=1.0, width=3))

    async def solve() -> Run:
        try:
            return await Runner(backend, settings, grader=Exact()).run(problem)
        finally:
            await backend.close()

    first, *branches = asyncio.run(solve()).trace.steps
    assert len(branches) == 3
    assert first.token_texts is not None
    for branch in branches:
        place = branch.extra["branch"]
        assert isinstance(place, list)
        assert place[0] == 1
        token = int(str(place[1]))
        assert branch.text.startswith("".join(first.token_texts[:token]))
        assert branch.text.endswith(str(branch.extra["sample"]))
        assert branch.tokens == len(branch.entropies or ()) < first.tokens
    assert branches[-1].answer == majority([str(step.extra["sample"]) for step in (first, *branches)])
