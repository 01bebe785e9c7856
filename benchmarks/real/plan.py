"""What `make real` does with each model, and what that costs in tokens and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from benchmarks.real import capitals, sums, word_problems
from benchmarks.real.servers import RunError, ServerSettings

Shape = Literal["sequential", "streaming"]
PROBE_TOKENS: Final = 8
"""Usual tokens of an elicited answer."""
STEP_TOKENS: Final = 15
"""Usual tokens between two cuts of a thought at sentence ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as the collectors need it."""

    grader: str
    max_tokens: int
    lines: tuple[str, ...] | None = None
    """The task file; None: `TASK.jsonl` is expected in the cache, and its texts are never published."""


def tasks() -> dict[str, Task]:
    """All tasks by name."""
    return {
        "word-problems": Task(grader="number", max_tokens=256, lines=tuple(word_problems.task_lines(500, seed=0))),
        "capitals": Task(
            grader="benchmarks.real.capitals:contains", max_tokens=128, lines=tuple(capitals.task_lines(400, seed=0))
        ),
        **{
            name: Task(grader="number", max_tokens=128, lines=tuple(sums.task_lines(400, seed=0, task=name)))
            for name in sums.LEVELS
        },
        "gsm8k": Task(grader="number", max_tokens=320),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run from the first token to the report."""

    model: str
    task: str
    prompts: Mapping[Shape, str]
    """The prompts of each shape that is run."""
    max_tokens: int
    temperature: float
    problems: int
    """Problems that are collected: for the calibration and the evaluation."""
    live: int
    """Further problems, answered once by the server alone and once through the gateway."""
    steps: int = 4
    splitter: str = "sentence"
    server: ServerSettings = field(default_factory=ServerSettings)

    @property
    def name(self) -> str:
        """Of the files of this run."""
        return f"{self.model}.{self.task}"


_FACTS: Final[dict[Shape, str]] = {"sequential": "real-sentence"}
_STEPS: Final[dict[Shape, str]] = {"sequential": "real-steps", "streaming": "real-cue"}


def _facts(
    model: str, *, task: str = "capitals", temperature: float = 0.7, problems: int = 120, slots: int = 8
) -> Plan:
    """Short questions that are answered in one sentence."""
    return Plan(
        model=model,
        task=task,
        prompts=_FACTS,
        max_tokens=48,
        temperature=temperature,
        problems=problems,
        live=20,
        server=ServerSettings(slots=slots, context=1024),
    )


def _stories(model: str, *, problems: int, live: int, slots: int = 8) -> Plan:
    """Word problems that are answered step by step."""
    return Plan(
        model=model,
        task="word-problems",
        prompts=_STEPS,
        max_tokens=128,
        temperature=0.7,
        problems=problems,
        live=live,
        server=ServerSettings(slots=slots, context=1536),
    )


_ALL: Final = (
    # SmolLM2 seldom writes the cue, so its thought has no end: no streaming shape. At temperature 0.7 it names one
    # capital in four, at 0.3 more than half.
    _facts("smollm2-135m", temperature=0.3),
    _facts("smollm2-135m", task="sums", temperature=0.3),
    # Gemma is a base model; `serve.py` gives it worked examples. It answers one in five of the sums.
    _facts("gemma3-270m", temperature=0.3),
    _facts("gemma3-270m", task="sums", temperature=0.3),
    _facts("gemma3-270m", task="easy-sums", temperature=0.3),
    _stories("qwen2.5-coder-0.5b", problems=100, live=12, slots=16),
    _facts("qwen2.5-coder-0.5b", slots=16),
    _facts("qwen2.5-coder-0.5b", task="hard-sums", slots=16),
    _stories("qwen2.5-coder-1.5b", problems=40, live=8),
    _facts("qwen2.5-coder-1.5b", problems=60),
    _facts("qwen2.5-coder-1.5b", task="hard-sums", problems=60),
)
PLANS: Final = {(plan.model, plan.task): plan for plan in _ALL}
"""By model and task; the first one of a model is its usual one."""
DEFAULT: Final = "qwen2.5-coder-0.5b"


def plan_of(model: str, task: str | None = None) -> Plan:
    """The plan of a model, by default its usual one; raises `RunError` if the model has no such task."""
    of_model = [plan for plan in _ALL if plan.model == model]
    chosen = next((plan for plan in of_model if task in (None, plan.task)), None)
    if chosen is None:
        raise RunError(f"{model} has no plan for {task}; it has {', '.join(plan.task for plan in of_model)}")
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """What the first steps of a few problems cost."""

    tokens: float
    """Mean completion tokens of a step."""
    together: float
    """Tokens in a second, with all slots in use."""
    alone: float
    """Tokens in a second of one stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What is still to be generated."""

    tokens: int
    seconds: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(tokens=self.tokens + other.tokens, seconds=self.seconds + other.seconds)


def cost(plan: Plan, shape: Shape, *, step: float, warm: WarmUp, problems: int, live: int) -> Cost:
    """The cost of a shape with steps, or thoughts, of `step` tokens, for the problems that are not finished."""
    if shape == "sequential":
        each, both = plan.steps * step, 2 * plan.steps * step
    else:
        each = step + PROBE_TOKENS * max(1, step // STEP_TOKENS)
        both = 2 * step + PROBE_TOKENS
    return Cost(
        tokens=round(problems * each + live * both),
        seconds=problems * each / warm.together + live * both / warm.alone,
    )


def forecast(plan: Plan, warm: WarmUp, left: Mapping[Shape, tuple[int, int]]) -> str:
    """One line that says what the run will cost; `left` has the problems of each shape to collect and to run live."""
    usual, most = (
        sum(
            (
                cost(plan, shape, step=step, warm=warm, problems=problems, live=live)
                for shape, (problems, live) in left.items()
            ),
            Cost(tokens=0, seconds=0.0),
        )
        for step in (warm.tokens, plan.max_tokens)
    )
    return (
        f"about {usual.tokens:,} tokens at {warm.together:.0f} tokens/s ({warm.alone:.0f} in one stream):"
        f" {minutes(usual.seconds)}; at most {most.tokens:,} tokens and {minutes(most.seconds)},"
        f" if every step needs its {plan.max_tokens} tokens"
    )


def minutes(seconds: float) -> str:
    """A duration as people say it."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
