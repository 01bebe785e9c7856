"""The mock upstream's other APIs: OpenAI's Responses, Anthropic's Messages and Ollama's own, with the same tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar, Final, cast

from justenough.testing.chunks import Chunks, Fault, Voice
from justenough.trace import Json

Body = dict[str, Json]


class OtherApi(Chunks):
    """Creates the JSON of one answer in another API than OpenAI's completions."""

    limit: ClassVar[str] = "max_tokens"
    """The member that limits the tokens of an answer."""

    def __init__(self, voice: Voice, body: Body, *, fault: Fault) -> None:
        super().__init__(voice, self.chat_of(body), chat=True, fault=fault)
        self.blocks: list[tuple[bool, str]] = []
        """The texts so far, each with whether it is a thought."""

    @classmethod
    def chat_of(cls, body: Body) -> Body:
        """The request as a chat."""
        return body | {"max_tokens": body.get(cls.limit)}

    def event(self, value: Json) -> bytes:
        """One event of a stream, with its type as its name."""
        return f"event: {cast('Body', value)['type']}\n".encode() + super().event(value)

    def error(self, message: str) -> Json:
        """An error in a stream."""
        return {"type": "error", "code": "server_error", "message": message}

    def begin(self) -> list[Json]:
        """The events before the first token."""
        return []

    def events_of(self, tokens: list[tuple[str, int, bool]]) -> list[Json]:
        """The events with some tokens."""
        events: list[Json] = []
        for text, _, thought in tokens:
            if not self.blocks or self.blocks[-1][0] != thought:
                events += [*self.closed(), *self.opened(thought)]
                self.blocks.append((thought, ""))
            self.blocks[-1] = (thought, self.blocks[-1][1] + text)
            events += self.piece(text, thought)
        return events

    def opened(self, thought: bool) -> list[Json]:
        """The events that open a block."""
        return []

    def piece(self, text: str, thought: bool) -> list[Json]:
        """The events of one token."""
        return []

    def closed(self) -> list[Json]:
        """The events that close the last block, if there is one."""
        return []

    def whole(self, tokens: list[tuple[str, bool]], finish: str, *, echo: str) -> Body:
        """A complete answer."""
        self.events_of([(text, number, thought) for number, (text, thought) in enumerate(tokens)])
        return self.answer(finish, len(tokens))

    def answer(self, finish: str, completion: int) -> Body:
        """The answer with the blocks so far."""
        raise NotImplementedError


class Responses(OtherApi):
    """`/v1/responses`."""

    limit = "max_output_tokens"
    done = b""

    def __init__(self, voice: Voice, body: Body, *, fault: Fault) -> None:
        super().__init__(voice, body, fault=fault)
        self._number = -1
        """The last event's number."""

    @classmethod
    def chat_of(cls, body: Body) -> Body:
        """The request as a chat."""
        given = body.get("input")
        messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
        system = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
        return super().chat_of(body) | {"messages": cast("Json", [*system, *cast("list[Json]", messages)])}

    def event(self, value: Json) -> bytes:
        """One event, numbered."""
        self._number += 1
        return super().event(cast("Body", value) | {"sequence_number": self._number})

    def begin(self) -> list[Json]:
        """The events before the first token."""
        response = self._response("in_progress")
        return [{"type": f"response.{name}", "response": response} for name in ("created", "in_progress")]

    def opened(self, thought: bool) -> list[Json]:
        """The events that open an item."""
        at, item = len(self.blocks), self._item(len(self.blocks), thought, "", "in_progress")
        part: Json = {"type": "reasoning_text" if thought else "output_text", "text": ""}
        added: Body = {"item_id": item["id"], "output_index": at, "content_index": 0, "part": part}
        return [
            {"type": "response.output_item.added", "output_index": at, "item": item | {"content": []}},
            {"type": "response.content_part.added", **added},
        ]

    def piece(self, text: str, thought: bool) -> list[Json]:
        """The event of one token."""
        return [self._of_part(f"{'reasoning' if thought else 'output'}_text.delta", {"delta": text})]

    def closed(self) -> list[Json]:
        """The events that close the last item."""
        if not self.blocks:
            return []
        thought, text = self.blocks[-1]
        item = self._item(len(self.blocks) - 1, thought, text, "completed")
        part = cast("list[Json]", item["content"])[0]
        done: Body = {"type": "response.output_item.done", "output_index": len(self.blocks) - 1, "item": item}
        name = f"{'reasoning' if thought else 'output'}_text.done"
        return [self._of_part(name, {"text": text}), self._of_part("content_part.done", {"part": part}), done]

    def end(self, finish: str, completion: int) -> list[Json]:
        """The events after the last token."""
        name = "incomplete" if finish == "length" else "completed"
        return [*self.closed(), {"type": f"response.{name}", "response": self.answer(finish, completion)}]

    def answer(self, finish: str, completion: int) -> Body:
        """The response with the items so far."""
        reasoning = sum(thought for thought, _ in self.blocks)
        usage: Body = {"input_tokens": self.prompt_tokens, "output_tokens": completion}
        usage |= {"total_tokens": self.prompt_tokens + completion, "input_tokens_details": {"cached_tokens": 0}}
        usage["output_tokens_details"] = {"reasoning_tokens": reasoning}
        cut = finish == "length"
        items: list[Json] = [self._item(at, *block, "completed") for at, block in enumerate(self.blocks)]
        details: Json = {"reason": "max_output_tokens"} if cut else None
        ended: Body = {"incomplete_details": details, "output": items, "usage": usage}
        return self._response("incomplete" if cut else "completed") | ended

    def _of_part(self, name: str, members: Body) -> Json:
        at = len(self.blocks) - 1
        place: Body = {"item_id": f"item_{at}", "output_index": at, "content_index": 0}
        return {"type": f"response.{name}", **place, **members}

    def _response(self, status: str) -> Body:
        head: Body = {"id": f"resp_{self.voice.answer_id}", "object": "response", "created_at": 1, "status": status}
        head |= {"model": self.voice.model, "output": [], "error": None, "incomplete_details": None}
        return head | {"instructions": None, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}

    def _item(self, at: int, thought: bool, text: str, status: str) -> Body:
        item: Body = {"id": f"item_{at}", "status": status}
        if thought:
            return item | {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}
        part: Json = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return item | {"type": "message", "role": "assistant", "content": [part]}


class Messages(OtherApi):
    """`/v1/messages`."""

    done = b""

    @classmethod
    def chat_of(cls, body: Body) -> Body:
        """The request as a chat."""
        system: list[Json] = [{"role": "system", "content": body["system"]}] if body.get("system") else []
        return super().chat_of(body) | {"messages": [*system, *cast("list[Json]", body["messages"])]}

    def error(self, message: str) -> Json:
        """An error in a stream."""
        return {"type": "error", "error": {"type": "api_error", "message": message}}

    def begin(self) -> list[Json]:
        """The event before the first token."""
        usage: Body = {"input_tokens": self.prompt_tokens, "output_tokens": 0}
        return [{"type": "message_start", "message": self._message(usage)}]

    def opened(self, thought: bool) -> list[Json]:
        """The event that opens a block."""
        return [{"type": "content_block_start", "index": len(self.blocks), "content_block": _block(thought, "")}]

    def piece(self, text: str, thought: bool) -> list[Json]:
        """The event of one token."""
        name = "thinking" if thought else "text"
        delta: Json = {"type": f"{name}_delta", name: text}
        return [{"type": "content_block_delta", "index": len(self.blocks) - 1, "delta": delta}]

    def closed(self) -> list[Json]:
        """The events that close the last block."""
        if not self.blocks:
            return []
        at = len(self.blocks) - 1
        signature: Json = {"type": "signature_delta", "signature": "mock"}
        signed: list[Json] = [{"type": "content_block_delta", "index": at, "delta": signature}]
        return [*(signed if self.blocks[-1][0] else []), {"type": "content_block_stop", "index": at}]

    def end(self, finish: str, completion: int) -> list[Json]:
        """The events after the last token."""
        delta: Json = {"stop_reason": _REASONS[finish], "stop_sequence": None}
        last: Json = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": completion}}
        return [*self.closed(), last, {"type": "message_stop"}]

    def answer(self, finish: str, completion: int) -> Body:
        """The message with the blocks so far."""
        usage: Body = {"input_tokens": self.prompt_tokens, "output_tokens": completion}
        content: list[Json] = [_block(*block) for block in self.blocks]
        return self._message(usage) | {"content": content, "stop_reason": _REASONS[finish]}

    def _message(self, usage: Body) -> Body:
        head: Body = {"id": self.voice.answer_id, "type": "message", "role": "assistant", "model": self.voice.model}
        return head | {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}


_REASONS: Final[Mapping[str, str]] = {"stop": "end_turn", "length": "max_tokens"}


def _block(thought: bool, text: str) -> Json:
    return {"type": "thinking", "thinking": text, "signature": ""} if thought else {"type": "text", "text": text}


class OllamaChat(OtherApi):
    """Ollama's `/api/chat`: a stream of lines."""

    content_type = "application/x-ndjson"
    done = b""

    @classmethod
    def chat_of(cls, body: Body) -> Body:
        """The request as a chat; it asks for a stream unless it says otherwise."""
        options = cast("Body", body.get("options") or {})
        limit = options.get("num_predict")
        limits: Body = {"max_tokens": limit if isinstance(limit, int) and limit > 0 else None}
        return body | limits | {"stream": body.get("stream", True)}

    def event(self, value: Json) -> bytes:
        """One line."""
        return json.dumps(value, separators=(",", ":")).encode() + b"\n"

    def error(self, message: str) -> Json:
        """An error in a stream."""
        return {"error": message}

    def events_of(self, tokens: list[tuple[str, int, bool]]) -> list[Json]:
        """The line with some tokens."""
        super().events_of(tokens)
        return [self._line(tokens)]

    def end(self, finish: str, completion: int) -> list[Json]:
        """The last line."""
        return [self._line([]) | self._ended(finish, completion)]

    def answer(self, finish: str, completion: int) -> Body:
        """The answer in one piece."""
        return self._line([(text, 0, thought) for thought, text in self.blocks]) | self._ended(finish, completion)

    def _ended(self, finish: str, completion: int) -> Body:
        counts: Body = {"prompt_eval_count": self.prompt_tokens, "eval_count": completion, "eval_duration": 5}
        return {"done": True, "done_reason": finish, "total_duration": 9, **counts}

    def _line(self, tokens: list[tuple[str, int, bool]]) -> Body:
        content = "".join([text for text, _, thought in tokens if not thought])
        thinking = "".join([text for text, _, thought in tokens if thought])
        line: Body = {"model": self.voice.model, "created_at": "2026-01-01T00:00:00Z"}
        line |= self.texts(content, {"thinking": thinking} if thinking else {}) | {"done": False}
        if self.wants and tokens:
            line["logprobs"] = cast("Body", self._logprobs(tokens))["content"]
        return line

    def texts(self, content: str, thinking: Body) -> Body:
        """The members with the text and the thought."""
        return {"message": {"role": "assistant", "content": content, **thinking}}


class OllamaGenerate(OllamaChat):
    """Ollama's `/api/generate`."""

    @classmethod
    def chat_of(cls, body: Body) -> Body:
        """The request as a chat."""
        return super().chat_of(body) | {
            "messages": [{"role": "user", "content": body.get("prompt") or ""}],
            "prompt": None,
        }

    def texts(self, content: str, thinking: Body) -> Body:
        """The members with the text and the thought."""
        return {"response": content, **thinking}


APIS: Final[Mapping[str, type[OtherApi]]] = {
    "/v1/responses": Responses,
    "/v1/messages": Messages,
    "/api/chat": OllamaChat,
    "/api/generate": OllamaGenerate,
}
"""The paths of these APIs."""
