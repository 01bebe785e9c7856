"""A solver for Inspect that asks through the gateway and keeps what the gate did with each sample.

    inspect eval task.py --solver justenough/gated --model openai-api/justenough/Qwen/Qwen3-8B

The settings go to the gateway with each request, so two runs against the same gateway can have different ones. The
gateway's reports go into the sample's store as `justenough`: scorers read them there, and the log keeps them. Inspect
shows a solver the responses of a sample's first five calls, and of all with `--log-model-api`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

from inspect_ai.event import ModelEvent
from inspect_ai.log import transcript
from inspect_ai.solver import Generate, TaskState, solver

from justenough.errors import InputError

MEMBER: Final = "justenough"
"""The gateway's member of a request and of an answer, and of the sample's store."""
_MODES: Final = ("gate", "observe", "off")


@solver  # type: ignore[untyped-decorator]
def gated(
    mode: Literal["gate", "observe", "off", False] = "gate",
    *,
    threshold: float | None = None,
    max_steps: int | None = None,
    budget: int | None = None,
) -> Callable[[TaskState, Generate], Awaitable[TaskState]]:
    """Generate like Inspect's `generate`, with these settings of the gateway for each request.

    `threshold` is in bits, instead of the calibration's; `budget` is the completion tokens of a request, its answer
    included. In the mode `off` nothing is measured, and `observe` tells what would be stopped. Raises `InputError`.
    """
    # Inspect reads `-S mode=off` as YAML, where `off` is false.
    mode = "off" if mode is False else mode
    if mode not in _MODES:
        raise InputError(f"the mode is {mode!r}", hint=f"one of {', '.join(_MODES)}")
    if threshold is not None and not threshold >= 0:
        raise InputError(f"the threshold is {threshold!r}", hint="bits, 0 or more")
    for name, value in {"max_steps": max_steps, "budget": budget}.items():
        if value is not None and value < 1:
            raise InputError(f"{name} is {value!r}", hint="1 or more")
    given = {"threshold": threshold, "max_steps": max_steps, "budget": budget}
    member: dict[str, object] = {"mode": mode} | {key: value for key, value in given.items() if value is not None}

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        before = len(transcript().events)
        state = await generate(state, extra_body={MEMBER: member})
        state.store.set(MEMBER, [*state.store.get(MEMBER, []), *_reports(transcript().events[before:])])
        return state

    return solve


def _reports(events: list[Any]) -> list[object]:
    """The gateway's reports on the calls of the model among these events."""
    calls = [event.call for event in events if isinstance(event, ModelEvent) and event.call is not None]
    responses = [call.response for call in calls if isinstance(call.response, dict)]
    return [response[MEMBER] for response in responses if MEMBER in response]
