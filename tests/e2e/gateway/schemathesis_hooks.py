"""What OpenAPI cannot say: a budget has a token for each choice that is asked for."""

from __future__ import annotations

from typing import Any

import schemathesis


def _least(*numbers: object) -> float:
    """The smallest of what can be read as a number."""
    found = [float("inf")]
    for number in numbers:
        try:
            found.append(float(str(number)))
        except ValueError:
            continue
    return min(found)


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: schemathesis.Case[Any]) -> bool:
    """Whether the gateway can be expected to take what the description allows."""
    body: dict[str, Any] = case.body if isinstance(case.body, dict) else {}
    control = body.get("justenough")
    headers: dict[str, Any] = dict(case.headers or ())
    budget = _least(headers.get("x-justenough-budget"), control.get("budget") if isinstance(control, dict) else None)
    choices = -_least(*[f"-{body.get(name)}" for name in ("n", "best_of", "n_cmpl")], -1)
    prompt = body.get("prompt")
    return budget >= choices * (len(prompt) if isinstance(prompt, list) else 1)
