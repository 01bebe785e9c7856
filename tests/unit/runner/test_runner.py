"""The runner: both shapes, every way to extend, real cancelling, and replay that equals the live run."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from justenough.backends.protocol import Request
from justenough.backends.replay import ReplayBackend
from justenough.errors import InputError, LogprobsMissing, SignalMismatch
from justenough.gate import GateSettings, Reason, replay
from justenough.grading import Exact, Problem, read_tasks
from justenough.runner import Extend, Run, Runner, RunSettings, equals_replay, majority
from justenough.runner.collect import run_all
from justenough.signal.signal import Signal
from justenough.toy.backend import EmbeddedBackend
from justenough.trace import Shape, Step
from tests.fakes import ScriptedBackend

PROBLEM = Problem(id="p", problem="2+2", target="4", task="t", family="f", group="g")


def answering(*answers: tuple[str, float]) -> ScriptedBackend:
    """Answers step k with the k-th answer, all its tokens at the given bits."""

    def script(request: Request) -> list[tuple[str, float]]:
        answer, bits = answers[min(request.key[1], len(answers)) - 1]
        return [("<think>", bits), ("hm", bits), ("</think>", bits), (f"Answer: {answer}", bits)]

    return ScriptedBackend(script)


def run(backend: ScriptedBackend, settings: RunSettings, gate: GateSettings | None = None) -> Run:
    cascade = answering(("4", 0.0)) if settings.extend == "cascade" else None
    return asyncio.run(Runner(backend, settings, grader=Exact(), gate=gate, cascade=cascade).run(PROBLEM))


def gate_of(threshold: float, **settings: object) -> GateSettings:
    signal = Signal(top_k=20, logits="raw", temperature=0.8)
    return replace(GateSettings(threshold=threshold, signal=signal), **settings)  # type: ignore[arg-type]


def test_a_confident_first_step_ends_the_run() -> None:
    backend = answering(("4", 0.1), ("5", 0.0))
    outcome = run(backend, RunSettings(), gate_of(0.5))
    assert [step.answer for step in outcome.trace.steps] == ["4"]
    assert outcome.decisions[-1].reason is Reason.CONFIDENT
    assert len(backend.requests) == 1


def test_an_unsure_first_step_extends_to_all_steps() -> None:
    backend = answering(("3", 0.9), ("4", 0.1), ("4", 0.1), ("4", 0.1))
    outcome = run(backend, RunSettings(), gate_of(0.5))
    assert [step.answer for step in outcome.trace.steps] == ["3", "4", "4", "4"]
    assert [decision.reason for decision in outcome.decisions] == [
        Reason.UNCERTAIN,
        Reason.NOT_DECISIVE,
        Reason.NOT_DECISIVE,
        Reason.MAX_STEPS,
    ]


def test_without_a_gate_every_step_is_recorded_and_graded() -> None:
    outcome = run(answering(("3", 0.0), ("4", 0.0)), RunSettings(max_steps=2))
    assert [step.correct for step in outcome.trace.steps] == [False, True]
    assert (outcome.trace.family, outcome.trace.group, outcome.trace.target) == ("f", "g", "4")


@pytest.mark.parametrize(
    ("extend", "messages", "continued"),
    [("refine", 3, False), ("wait", 2, True), ("effort", 1, False), ("vote", 1, False), ("cascade", 1, False)],
)
def test_the_request_of_the_second_step(extend: Extend, messages: int, continued: bool) -> None:
    backend = answering(("3", 0.9), ("4", 0.1))
    cascade = answering(("4", 0.0)) if extend == "cascade" else None
    runner = Runner(backend, RunSettings(extend=extend, max_steps=2), grader=Exact(), cascade=cascade)
    asyncio.run(runner.run(PROBLEM))
    second = (cascade or backend).requests[-1]
    assert (len(second.messages), second.continue_final) == (messages, continued)
    if extend == "wait":
        assert second.messages[-1].content == "<think>hm"
    if extend == "effort":
        assert [request.effort for request in backend.requests] == ["low", "medium"]
    if extend == "vote":
        assert {request.key for request in backend.requests} == {("p", 1), ("p", 2)}


def test_votes_carry_the_majority() -> None:
    outcome = run(answering(("3", 0.0), ("4", 0.0), ("4", 0.0)), RunSettings(extend="vote", max_steps=3))
    assert [step.answer for step in outcome.trace.steps] == ["3", "3", "4"]
    assert [step.extra["sample"] for step in outcome.trace.steps] == ["3", "4", "4"]
    assert [step.extra["sample_correct"] for step in outcome.trace.steps] == [False, True, True]
    assert majority([None, None]) is None
    assert majority([None, "b", "a", "a", "b"]) == "b"


def thinking(paragraphs: list[tuple[str, float]], *, answer: str = "4") -> ScriptedBackend:
    def script(request: Request) -> list[tuple[str, float]]:
        if request.key[0].endswith("#answer"):
            return [("Answer: ", 0.2), (str(request.key[1]), 0.3)]
        words = [("<think>", 0.0)]
        for text, bits in paragraphs:
            words += [(text, bits), ("\n\n", bits)]
        return [*words, ("</think>", 0.0), (f"Answer: {answer}", 0.0)]

    return ScriptedBackend(script)


def streaming(threshold: float | None, **settings: object) -> GateSettings | None:
    if threshold is None:
        return None
    signal = Signal(top_k=20, logits="raw", temperature=0.8, splitter="paragraph")
    result = GateSettings(threshold=threshold, signal=signal, shape="streaming")
    return replace(result, **settings)  # type: ignore[arg-type]


def test_a_stop_inside_a_thought_cancels_the_generation_and_elicits_the_answer() -> None:
    backend = thinking([("one", 0.1), ("two", 0.9), ("three", 0.9)])
    outcome = run(backend, RunSettings(shape="streaming"), streaming(0.5))
    (step,) = outcome.trace.steps
    assert backend.cancelled == [("p", 1)]
    assert backend.generated == 3 + 2  # the first paragraph, and the answer
    assert (step.tokens, step.answer) == (3, "1")
    assert step.probe is not None
    assert (step.probe.tokens, step.probe.entropies) == (2, (0.2, 0.3))
    assert outcome.trace.tokens == 5
    closed = backend.requests[-1].messages[-1]
    assert closed.content == "<think>one\n\n</think>"


def test_recording_a_thought_probes_every_step() -> None:
    backend = thinking([("one", 0.9), ("two", 0.9), ("three", 0.9)])
    outcome = run(backend, RunSettings(shape="streaming"))
    assert [step.answer for step in outcome.trace.steps] == ["1", "2", "4"]
    assert [step.probe is not None for step in outcome.trace.steps] == [True, True, True]
    # The closing tag and the answer of the model replace the last probe.
    assert outcome.trace.steps[-1].probe is not None
    assert outcome.trace.steps[-1].probe.text == "</think>Answer: 4"
    # The prompt was read once, and again with the thought so far for each elicited answer.
    queries = [sum(len(message.content) for message in request.messages) for request in backend.requests]
    assert [step.prompt_tokens for step in outcome.trace.steps] == [queries[0], 0, 0]
    assert [step.probe.prompt_tokens for step in outcome.trace.steps if step.probe] == [*queries[1:3], 0]
    assert backend.cancelled == []


def test_the_last_step_allowed_is_cut() -> None:
    backend = thinking([("one", 0.9), ("two", 0.9), ("three", 0.9)])
    outcome = run(backend, RunSettings(shape="streaming", max_steps=2))
    assert len(outcome.trace.steps) == 2
    assert backend.cancelled == [("p", 1)]


def test_a_thought_without_a_boundary_is_one_step() -> None:
    def script(request: Request) -> list[tuple[str, float]]:
        return [("<think>", 0.1), ("hm", 0.1), ("</think>", 0.1), ("Answer: 4", 0.1)]

    outcome = run(ScriptedBackend(script), RunSettings(shape="streaming"), streaming(0.5))
    (step,) = outcome.trace.steps
    assert (step.answer, step.tokens, step.text) == ("4", 2, "<think>hm")
    # The closing tag and the answer are no part of the step; they came without a further request.
    assert step.probe is not None
    assert (step.probe.text, step.probe.tokens, step.probe.prompt_tokens) == ("</think>Answer: 4", 2, 0)


def test_missing_logprobs_raise() -> None:
    backend = ScriptedBackend(lambda request: [("Answer: 4", 0.1)], blind=True)
    with pytest.raises(LogprobsMissing, match="max-logprobs"):
        run(backend, RunSettings())


def test_a_gate_of_another_signal_is_refused() -> None:
    with pytest.raises(SignalMismatch, match="temperature"):
        Runner(answering(("4", 0.1)), RunSettings(temperature=0.1), grader=Exact(), gate=gate_of(0.5))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        RunSettings(max_steps=0)
    with pytest.raises(InputError, match="temperature"):
        RunSettings(temperature=-1)
    with pytest.raises(InputError, match="cascade"):
        Runner(answering(("4", 0.1)), RunSettings(extend="cascade"), grader=Exact())


@pytest.mark.parametrize("shape", ["sequential", "streaming"])
def test_a_live_gated_run_is_the_replay_token_for_token(shape: Shape) -> None:
    async def both() -> None:
        backend = EmbeddedBackend()
        settings = RunSettings(shape=shape)
        problems = read_tasks("arithmetic-calibration", limit=24)
        recording = Runner(backend, settings, grader=Exact())
        recorded = await run_all(recording, problems, concurrency=10)
        bits = sorted(outcome.trace.steps[0].bits(recording.signal) or 0.0 for outcome in recorded)
        gate = GateSettings(threshold=bits[len(bits) // 2], signal=recording.signal, shape=shape)
        live = await run_all(Runner(backend, settings, grader=Exact(), gate=gate), problems, concurrency=20)
        stopped = 0
        for recorded_run, live_run in zip(recorded, live, strict=True):
            assert equals_replay(live_run, recorded_run.trace)
            replayed = replay(recorded_run.trace, gate)
            assert [decision.reason for decision in replayed] == [decision.reason for decision in live_run.decisions]
            assert [decision.entropy for decision in replayed] == [decision.entropy for decision in live_run.decisions]
            stopped += len(live_run.trace.steps) == 1
        assert 5 <= stopped <= 19
        await backend.close()

    asyncio.run(both())


@pytest.mark.parametrize("shape", ["sequential", "streaming"])
def test_a_replayed_run_costs_what_the_recorded_one_did(shape: Shape) -> None:
    async def both() -> None:
        backend = EmbeddedBackend()
        # Streaming, to the thought's own end: a stream that is cut does not report the tokens of its prompt.
        settings = RunSettings(shape=shape, max_steps=4 if shape == "sequential" else 50)
        (problem,) = read_tasks("arithmetic-calibration", limit=1)
        recorded = (await Runner(backend, settings, grader=Exact()).run(problem)).trace
        again = (await Runner(ReplayBackend([recorded]), settings, grader=Exact()).run(problem)).trace
        assert recorded.steps[0].prompt_tokens
        assert [costs(step) for step in again.steps] == [costs(step) for step in recorded.steps]
        assert again.tokens == recorded.tokens
        await backend.close()

    asyncio.run(both())


def costs(step: Step) -> tuple[int | None, ...]:
    probed = (None, None) if step.probe is None else (step.probe.tokens, step.probe.prompt_tokens)
    return (step.tokens, step.prompt_tokens, *probed)


def test_a_thought_that_leaves_no_room_for_its_answer_is_unanswered() -> None:
    def script(request: Request) -> list[tuple[str, float]]:
        return [("<think>", 0.1), ("hm\n\n", 0.1), ("so", 0.1), ("</think>", 0.1), ("Answer: 4", 0.1)]

    settings = RunSettings(shape="streaming")
    backend = ScriptedBackend(script, overlong=lambda request: request.key[0].endswith("#answer"))
    steps = run(backend, settings).trace.steps
    assert [(step.finish, step.answer) for step in steps] == [("context", None), ("stop", "4")]
    steps = run(ScriptedBackend(script, overlong=lambda _: True), settings).trace.steps
    assert [(step.finish, step.answer, step.tokens) for step in steps] == [("context", None, 0)]


def test_an_overlong_conversation_ends_a_gated_run_and_its_replay() -> None:
    backend = answering(("3", 0.9), ("4", 0.9))
    backend = ScriptedBackend(backend._script, overlong=lambda request: request.key[1] == 3)
    outcome = run(backend, RunSettings(), gate_of(0.5))
    assert outcome.decisions[-1].reason is Reason.CONTEXT
    assert outcome.decisions[-1].ends
    replayed = asyncio.run(
        Runner(ReplayBackend([outcome.trace]), RunSettings(), grader=Exact(), gate=gate_of(0.5)).run(PROBLEM)
    )
    assert equals_replay(replayed, outcome.trace)
    assert replayed.trace.steps[-1].finish == "context"


@pytest.mark.parametrize("shape", ["sequential", "streaming"])
def test_a_problem_outside_the_language_of_the_model_ends_a_run_and_its_replay(shape: Shape) -> None:
    outcome = run(ScriptedBackend(lambda _: [], unread=[PROBLEM.problem]), RunSettings(shape=shape))
    assert [(step.finish, step.answer, step.tokens) for step in outcome.trace.steps] == [("refused", None, 0)]
    assert [(decision.reason, decision.ends) for decision in outcome.decisions] == [(Reason.REFUSED, True)]
    runner = Runner(ReplayBackend([outcome.trace]), RunSettings(shape=shape), grader=Exact())
    assert asyncio.run(runner.run(PROBLEM)).trace.steps[-1].finish == "refused"
