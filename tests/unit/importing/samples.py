"""Hand-written files of each format."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa

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


PROBABILITIES = {"Answer: ": (1 / 4, 1 / 4, 1 / 4, 1 / 4), "4": (1 / 2, 1 / 4, 1 / 8, 1 / 8)}
"""Two tokens with the probabilities of their four likeliest alternatives, the sampled one first."""
BITS = (4 * (1 / 4 * 2) + (1 / 2 * 1 + 1 / 4 * 2 + 2 * (1 / 8 * 3))) / 2
"""Their mean entropy, from -log2 of 1/2, 1/4, 1/8 = 1, 2, 3: (2 + 1.75) / 2 = 1.875 bits."""


def logs() -> list[tuple[str, list[float]]]:
    """The tokens of `PROBABILITIES` with natural logarithms."""
    return [(token, [math.log(value) for value in row]) for token, row in PROBABILITIES.items()]


def openai_entries() -> list[Json]:
    return [entry(token, *row) for token, row in logs()]


def vllm_output(**more: Json) -> dict[str, Json]:
    rows: list[Json] = [
        {
            str(100 * at + rank): {"logprob": value, "rank": rank + 1, "decoded_token": token if rank == 0 else "?"}
            for rank, value in enumerate(row)
        }
        for at, (token, row) in enumerate(logs())
    ]
    output: dict[str, Json] = {"index": 0, "text": "Answer: 4", "token_ids": [0, 100], "logprobs": rows}
    output |= {"cumulative_logprob": -2.1, "finish_reason": "stop", "stop_reason": None}
    return {
        "request_id": "q1",
        "prompt": "2+2?",
        "prompt_token_ids": [1, 2, 3],
        "prompt_logprobs": None,
        "outputs": [output | more],
        "finished": True,
        "model": "m-1",
    }


def sglang_reply(**more: Json) -> dict[str, Json]:
    own: list[Json] = [[row[0], at, token] for at, (token, row) in enumerate(logs())]
    tops: list[Json] = [[[value, rank, "?"] for rank, value in enumerate(row)] for _, row in logs()]
    meta: dict[str, Json] = {
        "id": "q1",
        "finish_reason": {"type": "stop", "matched": 151645},
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "output_token_logprobs": own,
        "output_top_logprobs": tops,
    }
    return {"text": "Answer: 4", "output_ids": [0, 1], "meta_info": meta | more, "model": "m-1"}


def llamacpp_reply(form: str = "top_logprobs") -> dict[str, Json]:
    """`top_logprobs`: today's form; `top_probs`: with `post_sampling_probs`; `probs`: before December 2024."""
    own, key = ("logprob", "token") if form == "top_logprobs" else ("prob", "tok_str" if form == "probs" else "token")
    rows: list[Json] = []
    for token, row in logs():
        values = row if own == "logprob" else [math.exp(value) for value in row]
        tops: list[Json] = [{key: token if rank == 0 else "?", own: value} for rank, value in enumerate(values)]
        one: dict[str, Json] = {"content": token} if form == "probs" else {"token": token, own: values[0]}
        rows.append(one | {form: tops})
    reply: dict[str, Json] = {
        "content": "Answer: 4",
        "model": "m-1",
        "stop": True,
        "stop_type": "eos",
        "prompt": "2+2?",
    }
    return reply | {"tokens_predicted": 2, "tokens_evaluated": 3, "id_slot": 0, "completion_probabilities": rows}


def ollama_reply(**more: Json) -> dict[str, Json]:
    reply: dict[str, Json] = {"model": "m-1", "created_at": "2026-01-01T00:00:00Z", "response": "Answer: 4"}
    reply |= {"done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 2}
    return reply | {"logprobs": openai_entries()} | more


def gemini_reply(**more: Json) -> dict[str, Json]:
    tops: list[Json] = [
        {"candidates": [{"token": "?", "tokenId": rank, "logProbability": value} for rank, value in enumerate(row)]}
        for _, row in logs()
    ]
    chosen: list[Json] = [{"token": token, "tokenId": 0, "logProbability": row[0]} for token, row in logs()]
    candidate: dict[str, Json] = {
        "content": {"parts": [{"text": "Answer: 4"}], "role": "model"},
        "finishReason": "STOP",
        "logprobsResult": {"topCandidates": tops, "chosenCandidates": chosen},
    }
    used: dict[str, Json] = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
    reply: dict[str, Json] = {"candidates": [candidate | more], "usageMetadata": used}
    return reply | {"modelVersion": "m-1", "responseId": "q1"}


def response(**more: Json) -> dict[str, Json]:
    """A reply of the Responses API."""
    part: dict[str, Json] = {
        "type": "output_text",
        "text": "Answer: 4",
        "annotations": [],
        "logprobs": openai_entries(),
    }
    message: dict[str, Json] = {"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}
    output: list[Json] = [{"type": "reasoning", "id": "rs_1", "summary": []}, message]
    reply: dict[str, Json] = {"id": "q1", "object": "response", "status": "completed", "model": "m-1", "output": output}
    return reply | {"usage": {"input_tokens": 3, "output_tokens": 2}} | more


def known_chat(**more: Json) -> dict[str, Json]:
    """A chat completion of the tokens of `PROBABILITIES`."""
    return chat(*[entry(token, *row) for token, row in logs()], identity="q1") | more


def litellm_record(**more: Json) -> dict[str, Json]:
    record: dict[str, Json] = {"id": "call-1", "call_type": "acompletion", "status": "success", "model": "m-1"}
    record |= {"messages": [{"role": "user", "content": "2+2?"}], "model_parameters": {"seed": 7, "temperature": 0.6}}
    return record | {"response": known_chat()} | more


def langfuse_generation(**more: Json) -> dict[str, Json]:
    record: dict[str, Json] = {"id": "g1", "traceId": "t1", "type": "GENERATION", "model": "m-1"}
    record |= {"modelParameters": {"temperature": 0.6}, "input": [{"role": "user", "content": "2+2?"}]}
    return record | {"output": known_chat()} | more


def langsmith_run(**more: Json) -> dict[str, Json]:
    about: dict[str, Json] = {"model_name": "m-1", "finish_reason": "stop", "logprobs": {"content": openai_entries()}}
    about["token_usage"] = {"prompt_tokens": 3, "completion_tokens": 2}
    message: dict[str, Json] = {"content": "Answer: 4", "response_metadata": about}
    wrapped: dict[str, Json] = {"lc": 1, "type": "constructor", "id": ["AIMessage"], "kwargs": message}
    human: dict[str, Json] = {"lc": 1, "type": "constructor", "id": ["HumanMessage"], "kwargs": {"content": "2+2?"}}
    run: dict[str, Json] = {"id": "r1", "name": "ChatOpenAI", "run_type": "llm", "inputs": {"messages": [[human]]}}
    return run | {"outputs": {"generations": [[{"text": "Answer: 4", "message": wrapped}]]}} | more


def chunks(*, identity: str = "q1") -> list[dict[str, Json]]:
    """The tokens of `PROBABILITIES` as chunks, then the end and the usage, each in a chunk of its own."""
    base: dict[str, Json] = {"id": identity, "object": "chat.completion.chunk", "model": "m-1"}
    out: list[dict[str, Json]] = []
    for token, row in logs():
        one: Json = {"index": 0, "delta": {"content": token}, "logprobs": {"content": [entry(token, *row)]}}
        out.append(base | {"choices": [one]})
    out.append(base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    out.append(base | {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    return out


def deepconf_result(**more: Json) -> dict[str, Json]:
    trace: dict[str, Json] = {"text": "… 4", "num_tokens": 2, "confs": [3.0, 5.0], "stop_reason": "stop"}
    trace |= {"extracted_answer": "4", "is_correct": True}
    result: dict[str, Json] = {"question_id": 1, "question": "2+2?", "ground_truth": "4"}
    return result | {"config": {"model_path": "m-1"}, "all_traces": [trace, trace | {"is_correct": False}]} | more


def lmeval_sample(**more: Json) -> dict[str, Json]:
    sample: dict[str, Json] = {"doc_id": 0, "doc": {"question": "2+2?"}, "target": "1", "acc": 1.0}
    # The harness writes numbers as texts.
    return (
        sample | {"resps": [[["-9.0", "False"]], [["-2.0", "True"]]], "filtered_resps": [["-9.0", "False"]] * 2} | more
    )


def batch(custom_id: str, body: Json, *, status: int = 200) -> dict[str, Json]:
    return {"id": f"batch_{custom_id}", "custom_id": custom_id, "response": {"status_code": status, "body": body}}


def loaded(path: Path, format: str, content: Json | bytes, wanted: ImportOptions | None = None) -> LoadResult:
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return import_file(path, format=format, options=wanted)


def zstandard(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


def lines(*values: Json | str) -> bytes:
    return "\n".join(value if isinstance(value, str) else json.dumps(value) for value in values).encode()


def one_step(trace: Trace) -> tuple[str, int, float | None]:
    step = trace.steps[0]
    bits = step.bits(trace.signal)
    return str(step.answer), step.tokens, None if bits is None else round(bits, 9)


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
