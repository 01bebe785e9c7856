"""Hand-written files of each format."""

from __future__ import annotations

import json
import math
from pathlib import Path

from justenough.importing import ImportOptions, import_file
from justenough.trace import Json, Trace
from justenough.trace.files import LoadResult

LN2 = math.log(2)


def entry(token: str, *logprobs: float) -> dict[str, Json]:
    top: list[Json] = [{"token": str(at), "logprob": value, "bytes": None} for at, value in enumerate(logprobs)]
    return {"token": token, "logprob": logprobs[0], "bytes": list(token.encode()), "top_logprobs": top}


def chat(
    *entries: dict[str, Json],
    identity: str = "chatcmpl-1",
    text: str = "Answer: 4",
    tokens: int | None = None,
    finish: str = "stop",
) -> dict[str, Json]:
    """A chat completion of `Answer: 4`, three tokens, one bit each, unless told otherwise."""
    content = entries or (entry("Answer", -LN2, -LN2), entry(": ", -LN2, -LN2), entry("4", -LN2, -LN2))
    choice: dict[str, Json] = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "logprobs": {"content": list(content)},
        "finish_reason": finish,
    }
    usage: dict[str, Json] = {"prompt_tokens": 7, "completion_tokens": len(content) if tokens is None else tokens}
    return {"id": identity, "object": "chat.completion", "model": "m-1", "choices": [choice], "usage": usage}


def completion(identity: str, text: str, tops: list[Json]) -> dict[str, Json]:
    logprobs: dict[str, Json] = {"tokens": list(text), "token_logprobs": [-LN2] * len(text), "top_logprobs": tops}
    choice: dict[str, Json] = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": "length"}
    return {"id": identity, "object": "text_completion", "model": "m-1", "choices": [choice]}


def batch(custom_id: str, body: Json, *, status: int = 200) -> dict[str, Json]:
    return {"id": f"batch_{custom_id}", "custom_id": custom_id, "response": {"status_code": status, "body": body}}


def loaded(path: Path, format: str, content: Json | bytes, wanted: ImportOptions | None = None) -> LoadResult:
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return import_file(path, format=format, options=wanted)


def lines(*values: Json | str) -> bytes:
    return "\n".join(value if isinstance(value, str) else json.dumps(value) for value in values).encode()


def one_step(trace: Trace) -> tuple[str, int, float | None]:
    made = trace.steps[0]
    bits = made.bits(trace.signal)
    return str(made.answer), made.tokens, None if bits is None else round(bits, 9)


def model_event(text: str, *, model: str = "openai/m-1", **more: Json) -> dict[str, Json]:
    logprobs: dict[str, Json] = {"content": [entry(text, -LN2, -LN2)]}
    message: dict[str, Json] = {"role": "assistant", "content": text}
    choice: dict[str, Json] = {"message": message, "stop_reason": "max_tokens", "logprobs": logprobs}
    usage: dict[str, Json] = {"input_tokens": 11, "output_tokens": 1, "total_tokens": 12}
    output: dict[str, Json] = {"model": "m-1", "choices": [choice], "usage": usage, "time": 1.5}
    event: dict[str, Json] = {"event": "model", "model": model, "output": output}
    return event | more


def inspect_log(*samples: Json) -> dict[str, Json]:
    header: dict[str, Json] = {"task": "popularity", "model": "openai/m-1", "model_generate_config": {}}
    plan: dict[str, Json] = {"config": {"temperature": 0.7}}
    return {"version": 2, "status": "success", "eval": header, "plan": plan, "samples": list(samples)}


def sample(identity: Json, *events: Json, value: Json = "C", answer: str | None = "4", **more: Json) -> dict[str, Json]:
    base: dict[str, Json] = {"id": identity, "epoch": 1, "input": "2+2?", "target": "4", "events": list(events)}
    scores: dict[str, Json] = {"match": {"value": value, "answer": answer}}
    return base | {"scores": scores} | more


HEADER = "model,question_id,category,correct_answer,extracted_answer,mean_token_prob,token_length,answered,correct\n"


RECORDS = HEADER + (
    "A,1,law,C,C,0.75,10,True,True\n"
    "B,1,law,C,D,0.5,100,True,False\n"
    "A,2,law,A,,nan,20,False,False\n"
    "B,2,law,A,A,0.9,200,1,1\n"
    "A,3,math,A,B,1.5,20,True,False\n"
    "A,4,math,A,B,0.5,twenty,True,False\n"
    "A,5,math,A,B,0.5,20,True,maybe\n"
    "A,6,math,A,B,0.5,20,True,False\n"
    "A,1,law,C,C,0.75,10,True,True\n"
    "C,9,law,C,C,x,10,True,True\n"
    ",7,law,C,C,0.75,10,True,True\n"
)
