"""Live rules in the runner: they stop as on the recording, pay for all probes, and need no log-probabilities."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from justenough.backends.openai import OpenAIBackend
from justenough.backends.protocol import CONTEXT, Backend, Request
from justenough.errors import BackendRejected, InputError, LogprobsMissing
from justenough.gate import Action, GateSettings, Reason
from justenough.grading import Exact, Problem, read_tasks
from justenough.rules.dynamics import EsCot, Leash
from justenough.rules.live import LiveRule, open_live
from justenough.rules.rivals import AnswerConvergence, Deer, Dynasor, Eat
from justenough.runner import Run, Runner, RunSettings, equals_replay
from justenough.runner.collect import collect, run_all, settings_digest
from justenough.signal.signal import Signal
from justenough.testing import Fault, MockUpstream
from justenough.toy.backend import EmbeddedBackend
from justenough.trace import Shape
from justenough.trace.files import read_traces
from tests.fakes import ScriptedBackend

PROBLEM: Final = Problem(id="p", problem="2+2", target="4", task="t")
RULES: Final = [
    *map(
        open_live,
        (
            "answer-convergence",
            "answer-convergence@2",
            "dynasor:2",
            "halt-cot",
            "deer:0.9",
            "code-stop",
            "always-2-steps",
            "fixed-budget:20",
            "all-steps",
        ),
    ),
    # Their defaults wait for more steps than a short run has.
    LiveRule(EsCot(1), 2),
    LiveRule(Eat(1.0, 0.9), 1),
]
SETTINGS: Final[dict[Shape, RunSettings]] = {
    "streaming": RunSettings(shape="streaming", splitter="tokens:4", max_steps=24),
    "sequential": RunSettings(max_steps=3),
}


def same_tokens(live: Run, recorded: Run) -> bool:
    """Whether texts and answers agree. Entropies of llama.cpp depend on what its cache holds, in the last digits."""
    steps = live.trace.steps
    before = recorded.trace.steps[: len(steps)]
    texts = [(step.text, step.token_texts) for step in steps] == [(step.text, step.token_texts) for step in before]
    return texts and steps[-1].answer == before[-1].answer


def agree(
    backend: Backend,
    shape: Shape,
    problems: Sequence[Problem],
    *,
    at_once: int,
    same: Callable[[Run, Run], bool] = lambda live, recorded: equals_replay(live, recorded.trace),
) -> set[str]:
    """Check that all rules stop live as on one recording; returns those that stopped a run early."""

    async def together() -> set[str]:
        settings, stopped = SETTINGS[shape], set[str]()
        recorded = await run_all(Runner(backend, settings, grader=Exact()), problems, concurrency=at_once)
        for rule in RULES:
            runner = Runner(backend, settings, grader=Exact(), rule=rule)
            for live, whole in zip(await run_all(runner, problems, concurrency=at_once), recorded, strict=True):
                replayed = rule.replay(whole.trace)
                assert same(live, whole), (rule.name, live.trace.id)
                assert (len(live.trace.steps), live.spent) == (replayed.step, replayed.tokens), (rule.name, whole)
                assert (live.decisions[-1].action is Action.STOP) is replayed.early
                assert live.trace.extra == {"rule": rule.name, "spent": live.spent}
                if replayed.early:
                    stopped.add(rule.name)
        await backend.close()
        return stopped

    return asyncio.run(together())


@pytest.mark.parametrize("shape", ["streaming", "sequential"])
def test_live_and_replay_agree_on_the_embedded_model(shape: Shape) -> None:
    stopped = agree(EmbeddedBackend(concurrency=8), shape, read_tasks("sum", limit=3), at_once=3)
    assert {"answer-convergence:2@1-8", "dynasor:2@1-8", "halt-cot:0.6:2@1-8", "deer:0.9@1-8"} <= stopped


@pytest.mark.parametrize("shape", ["streaming", "sequential"])
def test_live_and_replay_agree_on_llama_cpp(shape: Shape, llama_server: str) -> None:
    backend = OpenAIBackend("justenough-embedded", base_url=llama_server, server="llamacpp", concurrency=4)
    stopped = agree(backend, shape, read_tasks("sum", limit=2), at_once=1, same=same_tokens)
    assert {"deer:0.9@1-8", "always-2-steps"} <= stopped


def test_leash_reads_the_top_log_probabilities_of_a_live_thought() -> None:
    async def both() -> tuple[list[Run], list[Run]]:
        backend, problems = EmbeddedBackend(concurrency=4), read_tasks("sum", limit=4)
        settings = SETTINGS["streaming"]
        never = Runner(backend, settings, grader=Exact(), rule=LiveRule(Leash(1e6, limit=None)))
        some = Runner(backend, settings, grader=Exact(), rule=rule)
        return await run_all(never, problems, concurrency=4), await run_all(some, problems, concurrency=4)

    rule = LiveRule(Leash(-2.0, limit=None))
    recorded, live = asyncio.run(both())
    assert [len(run.trace.steps) for run in live] == [rule.replay(run.trace).step for run in recorded]
    assert any(run.decisions[-1].action is Action.STOP for run in live)


def thinking(answers: str, *, blind: bool = False, close: bool = True) -> ScriptedBackend:
    """A thought of three tokens a step; the answer that is elicited after step k is the k-th."""

    def script(request: Request) -> list[tuple[str, float]]:
        if request.key[0].endswith("#answer"):
            return [("Answer: ", 0.2), (answers[request.key[1] - 1], 0.3)]
        words = [(text, 0.5) for _ in answers for text in ("so", " on", "\n\n")]
        return [("<think>", 0.0), *words, *([("</think>", 0.0), ("Answer: 9", 0.0)] if close else [])]

    return ScriptedBackend(script, blind=blind)


def streamed(backend: Backend, rule: LiveRule, *, max_steps: int = 30) -> Run:
    settings = RunSettings(shape="streaming", max_steps=max_steps)
    return asyncio.run(Runner(backend, settings, grader=Exact(), rule=rule).run(PROBLEM))


def test_a_stop_cancels_the_thought_and_all_probes_are_charged() -> None:
    backend = thinking("122344")
    run = streamed(backend, LiveRule(AnswerConvergence(2), 1))
    assert [step.answer for step in run.trace.steps] == ["1", "2", "2"]
    assert [(decision.action, decision.reason) for decision in run.decisions] == [
        (Action.EXTEND, Reason.RULE),
        (Action.EXTEND, Reason.RULE),
        (Action.STOP, Reason.RULE),
    ]
    assert run.decisions[-1].explanation == "the stopping rule decides so"
    assert backend.cancelled == [("p", 1)]
    assert (run.trace.tokens, run.spent, backend.generated) == (10 + 2, 10 + 3 * 2, 10 + 3 * 2)
    assert run.trace.extra["spent"] == 16


def test_steps_at_which_the_rule_does_not_look_are_not_probed() -> None:
    backend = thinking("1234567777777777")
    run = streamed(backend, LiveRule(AnswerConvergence(2)))
    assert [number for number, step in enumerate(run.trace.steps, 1) if step.probe is not None] == [1, 3, 7, 15]
    assert run.trace.steps[-1].answer == "7"
    assert run.spent == backend.generated


def test_a_rule_that_reads_no_answers_is_probed_only_at_its_stop() -> None:
    backend = thinking("1234")
    run = streamed(backend, open_live("always-2-steps"))
    assert [step.answer for step in run.trace.steps] == [None, "2"]
    assert len(backend.requests) == 2


def test_the_last_allowed_step_is_answered_without_the_rule() -> None:
    run = streamed(thinking("1234"), LiveRule(AnswerConvergence(2), 1), max_steps=2)
    assert [step.answer for step in run.trace.steps] == ["1", "2"]
    assert run.decisions[-1].reason is Reason.MAX_STEPS


def test_some_rules_generate_the_final_answer_anew_and_pay_for_both() -> None:
    runner = Runner(EmbeddedBackend(concurrency=2), SETTINGS["streaming"], grader=Exact(), rule=LiveRule(Deer(0.5), 1))
    run = asyncio.run(runner.run(read_tasks("sum", limit=1)[0]))
    last = run.trace.steps[-1]
    assert last.probe is not None
    assert last.extra["trial"] == last.probe.tokens
    earlier = sum(step.probe.tokens for step in run.trace.steps[:-1] if step.probe is not None)
    assert run.spent == run.trace.tokens + earlier + last.probe.tokens


def test_a_probe_that_the_models_own_answer_replaces_is_charged() -> None:
    """The last step of the thought was probed before it was known to be the last one."""
    backend = thinking("123")
    run = streamed(backend, LiveRule(AnswerConvergence(2), 1))
    assert [step.answer for step in run.trace.steps] == ["1", "2", "9"]
    assert run.trace.steps[-1].extra["trial"] == 2
    assert run.spent == backend.generated


def test_a_thought_that_fills_the_context_is_no_answer_to_look_at() -> None:
    backend = thinking("1222")
    backend._overlong = lambda request: request.key == ("p#answer", 2)
    run = streamed(backend, LiveRule(AnswerConvergence(2), 1))
    assert [step.finish for step in run.trace.steps] == [None, CONTEXT, None, None]
    assert [step.answer for step in run.trace.steps] == ["1", None, "2", "2"]


def test_rules_on_answers_need_no_log_probabilities() -> None:
    for rule in (LiveRule(AnswerConvergence(2), 1), LiveRule(Dynasor(2), 1)):
        run = streamed(thinking("1222", blind=True), rule)
        assert [step.answer for step in run.trace.steps] == ["1", "2", "2"]
    with pytest.raises(LogprobsMissing):
        streamed(thinking("1222", blind=True), LiveRule(Deer(0.5), 1))


def test_sequential_rules_on_answers_need_none_either() -> None:
    def script(request: Request) -> list[tuple[str, float]]:
        return [("<think>", 0.0), ("hm", 0.0), ("</think>", 0.0), ("Answer: 4", 0.0)]

    for rule in (AnswerConvergence(2), Dynasor(2)):
        runner = Runner(ScriptedBackend(script, blind=True), RunSettings(), grader=Exact(), rule=LiveRule(rule))
        run = asyncio.run(runner.run(PROBLEM))
        assert len(run.trace.steps) == 2
        assert run.decisions[-1].reason is Reason.RULE


def on_mock(rule: str, fault: Fault, *, shape: Shape = "streaming") -> tuple[Run, MockUpstream]:
    async def go() -> tuple[Run, MockUpstream]:
        async with MockUpstream(
            thought=("One.\n\n", "Two.\n\n", "Three.\n\n", "Four.\n\n"),
            answer=("Answer: ", "42"),
            fault=fault,
        ) as mock:
            backend = OpenAIBackend("mock", base_url=mock.url)
            settings = RunSettings(shape=shape, max_steps=4)
            try:
                runner = Runner(backend, settings, grader=Exact(), rule=open_live(rule))
                return await runner.run(PROBLEM), mock
            finally:
                await backend.close()

    return asyncio.run(go())


@pytest.mark.parametrize("shape", ["streaming", "sequential"])
@pytest.mark.parametrize("fault", [Fault.NONE, Fault.NO_LOGPROBS, Fault.REFUSE_LOGPROBS])
def test_a_server_without_log_probabilities_is_stopped_by_answers(fault: Fault, shape: Shape) -> None:
    run, mock = on_mock("dynasor:2@1", fault, shape=shape)
    assert [step.answer for step in run.trace.steps] == ["42", "42"]
    assert run.decisions[-1].reason is Reason.RULE
    assert bool(run.trace.steps[0].entropies) is (fault is Fault.NONE)
    if fault is Fault.REFUSE_LOGPROBS:
        # After one refusal they are no longer requested.
        assert [b"logprobs" in request.body for request in mock.completions][-1] is False


def test_a_rule_on_log_probabilities_refuses_such_a_server() -> None:
    with pytest.raises(LogprobsMissing):
        on_mock("deer:0.5", Fault.NO_LOGPROBS)
    with pytest.raises(BackendRejected):
        on_mock("deer:0.5", Fault.REFUSE_LOGPROBS)


def test_a_gate_and_a_rule_exclude_each_other() -> None:
    gate = GateSettings(threshold=1.0, signal=Signal(top_k=20, logits="raw", temperature=0.8))
    with pytest.raises(InputError, match="both a gate and a rule"):
        Runner(thinking("1"), RunSettings(), grader=Exact(), gate=gate, rule=open_live("deer"))


def test_a_collection_under_a_rule_resumes_and_is_never_mixed(tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    problems = [Problem(id=name, problem="2+2", target="4", task="t") for name in "abc"]

    async def collected(rule: LiveRule | None) -> tuple[int, int]:
        settings = RunSettings(shape="streaming")
        result = await collect(problems, out, backend=thinking("1222"), settings=settings, rule=rule)
        return result.reused, result.tokens

    rule = LiveRule(AnswerConvergence(2), 1)
    assert asyncio.run(collected(rule)) == (0, 3 * 16)
    assert asyncio.run(collected(rule)) == (3, 0)
    traces = read_traces(out).traces
    assert [trace.extra["spent"] for trace in traces] == [16] * 3
    for other in (None, LiveRule(AnswerConvergence(2), 2), LiveRule(AnswerConvergence(3), 1)):
        with pytest.raises(InputError, match="other settings"):
            asyncio.run(collected(other))


def test_a_rule_is_part_of_the_settings_and_none_changes_nothing() -> None:
    backend, settings = thinking("1"), RunSettings()
    digests = {
        settings_digest(backend, settings, grader="exact", rule=rule)
        for rule in (None, open_live("deer"), open_live("deer@2"), open_live("deer:0.9"), open_live("always-2-steps"))
    }
    assert len(digests) == 5
