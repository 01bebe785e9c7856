"""simonw/llm with its OpenAI plugin: whole, streamed, asynchronous, and in conversation."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import llm

from tests.clients.ask import MODEL, QUESTION, SETTINGS, Results, ask_all


def known(urls: list[str]) -> None:
    """Tell the plugin of one model for each server, in the way that it has for such; JSON is YAML."""
    models = [{"model_id": url, "model_name": MODEL, "api_base": f"{url}/v1"} for url in urls]
    (Path(os.environ["LLM_USER_PATH"]) / "extra-openai-models.yaml").write_text(json.dumps(models))


async def asking(url: str) -> Results:
    found: Results = {}
    for name, stream in (("whole", False), ("streamed", True)):
        response = llm.get_model(url).prompt(QUESTION, stream=stream, **SETTINGS)
        found[name] = {"pieces": list(response), "json": response.json(), "usage": response.usage()}
        later = llm.get_async_model(url).prompt(QUESTION, stream=stream, **SETTINGS)
        pieces = [piece async for piece in later]
        found[f"async {name}"] = {"pieces": pieces, "json": await later.json(), "usage": await later.usage()}
    conversation = llm.get_model(url).conversation()
    found["conversation"] = [conversation.prompt(text, **SETTINGS).text() for text in (QUESTION, "12+7")]
    return found


if __name__ == "__main__":
    known(sys.argv[2:])
    ask_all(asking)
