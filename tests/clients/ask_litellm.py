"""litellm: whole, streamed, asynchronous, with log-probabilities, as text, and an error."""

from __future__ import annotations

from typing import Any

import litellm

from tests.clients.ask import MESSAGES, MODEL, QUESTION, SETTINGS, Results, ask_all


def asked(url: str) -> dict[str, Any]:
    """What every call says."""
    return {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": "none", **SETTINGS}


def sync(url: str) -> Results:
    same = asked(url)
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    found = {
        "whole": litellm.completion(messages=MESSAGES, **same),
        "streamed": list(litellm.completion(messages=MESSAGES, **same, **stream)),
        "logprobs": litellm.completion(messages=MESSAGES, **same, logprobs=True, top_logprobs=3),
        "text": litellm.text_completion(
            prompt=f"<|user|>{QUESTION}<|end|><|assistant|>", **same | {"model": f"text-completion-openai/{MODEL}"}
        ),
    }
    try:
        litellm.completion(messages=MESSAGES, **same, top_logprobs=3)
    except litellm.exceptions.BadRequestError as error:
        found["error"] = [type(error).__name__, str(error)]
    return found


async def asking(url: str) -> Results:
    same = asked(url)
    return sync(url) | {
        "async whole": await litellm.acompletion(messages=MESSAGES, **same),
        "async streamed": [each async for each in await litellm.acompletion(messages=MESSAGES, **same, stream=True)],
    }


if __name__ == "__main__":
    ask_all(asking)
