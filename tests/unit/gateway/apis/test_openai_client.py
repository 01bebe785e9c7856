"""OpenAI's own client reads every answer of the gateway: its types, its streams and its helpers for streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import openai
import pytest

from justenough.testing import CONFIDENT, UNSURE
from tests.unit.gateway.wild import TEXTS, Scripted, before

MESSAGES: Final[Any] = [{"role": "user", "content": "6*7?"}]
CUT: Final = "<think>Let me think.\n\n</think>"
UNCUT: Final = "<think>Let me think.\n\nSo 42.\n\n</think>"
IMAGE: Final = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CALL: Final = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
AUDIO: Final = {"id": "a", "data": "QQ==", "transcript": "Yes.", "expires_at": 1}
ROWS: Final = {"cut": CONFIDENT, "uncut": UNSURE}


def asked(server: Scripted, ask: Callable[[openai.AsyncOpenAI], Coroutine[Any, Any, Any]]) -> Any:
    """What the client reads; an answer that does not fit its types is an error."""

    async def main() -> Any:
        async with (
            before(server, "gate") as (gateway, _),
            openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client,
        ):
            return await ask(client)

    return asyncio.run(main())


def server_with(row: Any, *deltas: dict[str, Any], rest: tuple[str, ...] = ()) -> Scripted:
    texts = (*TEXTS[: TEXTS.index("</think>") + 1], *rest)
    return Scripted(row=row, deltas=deltas, texts=texts, rest=rest, usage={"prompt_tokens": 5, "completion_tokens": 9})


async def response(client: openai.AsyncOpenAI) -> Any:
    whole = await client.responses.create(model="m", input="6*7?", store=False)
    whole.model_dump(mode="json", warnings="error")
    return whole


async def streamed_response(client: openai.AsyncOpenAI) -> Any:
    events = [e async for e in await client.responses.create(model="m", input="6*7?", store=False, stream=True)]
    for event in events:
        event.model_dump(mode="json", warnings="error")
        # An event of no known type has only the base class.
        assert type(event).__module__.startswith("openai.types.responses."), event
    last: Any = events[-1]
    return last.response


async def helped_response(client: openai.AsyncOpenAI) -> Any:
    async with client.responses.stream(model="m", input="6*7?", store=False) as stream:
        async for _ in stream:
            pass
        return await stream.get_final_response()


async def chat(client: openai.AsyncOpenAI) -> Any:
    return (await client.chat.completions.create(model="m", messages=MESSAGES)).choices[0].message


async def helped_chat(client: openai.AsyncOpenAI) -> Any:
    async with client.chat.completions.stream(model="m", messages=MESSAGES) as stream:
        async for _ in stream:
            pass
        return (await stream.get_final_completion()).choices[0].message


RESPONSES: Final = (response, streamed_response, helped_response)
CHATS: Final = (chat, helped_chat)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("ask", RESPONSES)
def test_a_response_with_a_text_and_a_refusal(ask: Any, row: str) -> None:
    thought = CUT if row == "cut" else UNCUT
    server = server_with(ROWS[row], {"refusal": "I can"}, {"refusal": "not."}, rest=("Well. ",))
    said, refused = asked(server, ask).output
    assert (said.type, said.content[0].type, said.content[0].text) == ("message", "output_text", f"{thought}Well. ")
    assert (refused.type, refused.content[0].type, refused.content[0].refusal) == ("message", "refusal", "I cannot.")
    assert len(server.requests) == (2 if row == "cut" else 1)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("ask", RESPONSES[1:])
@pytest.mark.parametrize("member", [{"images": [IMAGE]}, {"audio": AUDIO}])
def test_a_response_without_a_form_for_its_answer_raises(member: dict[str, Any], ask: Any, row: str) -> None:
    async def refused(client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.APIError, match="no form"):
            await ask(client)

    asked(server_with(ROWS[row], member), refused)


@pytest.mark.parametrize("ask", RESPONSES[1:])
def test_a_response_with_a_call_of_a_tool(ask: Any) -> None:
    output = asked(server_with(UNSURE, {"tool_calls": [CALL]}), ask).output
    assert [item.type for item in output] == ["message", "function_call"]
    assert (output[1].call_id, output[1].name, output[1].arguments) == ("c", "f", "{}")


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("ask", CHATS)
def test_a_chat_with_a_refusal(ask: Any, row: str) -> None:
    message = asked(server_with(ROWS[row], {"refusal": "I can"}, {"refusal": "not."}), ask)
    assert (message.content, message.refusal) == (CUT if row == "cut" else UNCUT, "I cannot.")


@pytest.mark.parametrize("row", ROWS)
def test_a_chat_with_images_and_audio(row: str) -> None:
    message = asked(server_with(ROWS[row], {"images": [IMAGE]}, {"audio": AUDIO}), chat)
    assert (message.audio.transcript, message.images) == ("Yes.", [IMAGE])
