"""The clients of other APIs, whole, streamed and with an error: `openai` for Responses, `anthropic`, `ollama`."""

from __future__ import annotations

import sys
from typing import Any

import anthropic
import ollama
import openai

from tests.clients.ask import MESSAGES, MODEL, QUESTION, Results, ask_all


async def responses(url: str) -> Results:
    """OpenAI's Responses."""
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    same: dict[str, Any] = {"model": MODEL, "input": QUESTION, "temperature": 0.0, "max_output_tokens": 400}
    whole = await client.responses.create(**same)
    events = [event async for event in await client.responses.create(**same, stream=True)]
    try:
        await client.responses.create(**same | {"max_output_tokens": "many"})
        error = ""
    except openai.BadRequestError as refused:
        error = str(refused)
    return {
        "whole": [whole, whole.output_text],
        "streamed": [
            events[-1].response,
            "".join([event.delta for event in events if event.type == "response.output_text.delta"]),
        ],
        "error": error,
    }


async def messages(url: str) -> Results:
    """Anthropic's Messages."""
    client = anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0)
    same: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 400, "extra_body": {"temperature": 0.0}}
    whole = await client.messages.create(**same)
    async with client.messages.stream(**same) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        streamed = await stream.get_final_message()
    try:
        await client.messages.create(**same | {"extra_body": {"top_p": "many"}})
        error = ""
    except anthropic.BadRequestError as refused:
        error = str(refused)
    return {"whole": [whole, whole.content[0].text], "streamed": [streamed, text], "error": error}


async def native(url: str) -> Results:
    """Ollama's own API."""
    client = ollama.AsyncClient(url)
    options = {"temperature": 0.0, "num_predict": 400}
    chat: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "options": options}
    whole = await client.chat(**chat)
    parts = [part async for part in await client.chat(**chat, stream=True)]
    pieces = [part async for part in await client.generate(MODEL, QUESTION, options=options, stream=True)]
    return {
        "whole": [whole, whole.message.content],
        "streamed": [parts[-1], "".join([part.message.content or "" for part in parts])],
        "generated": [pieces[-1], "".join([part.response or "" for part in pieces])],
    }


if __name__ == "__main__":
    ask_all({"responses": responses, "messages": messages, "ollama": native}[sys.argv.pop(1)])
