"""A program that uses the plugin in Python; prints one JSON line for each part. Run by `test_offline.py`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import justenough

PROMPT = "<|user|>47*36<|end|><|assistant|>"
V2 = os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "1"


def main(checkpoint: str, calibration: str, forced: str) -> None:
    from vllm import LLM, SamplingParams

    llm = LLM(
        checkpoint,
        served_model_name="justenough-embedded",
        logits_processors=[justenough.VLLMProcessor],
        reasoning_parser="deepseek_r1",
        worker_extension_cls="justenough.integrations.vllm.worker.Extension",
        dtype="float32",
        enforce_eager=True,
        max_num_seqs=4,
        max_logprobs=20,
        **({"enable_trace_replay": True} if V2 else {}),
    )
    gate = {"justenough": Path(calibration).read_text()}
    shared = SamplingParams(temperature=0, max_tokens=400, extra_args=gate | {"justenough_id": "shared"})
    plain = SamplingParams(temperature=0, max_tokens=400)
    outputs = llm.generate([PROMPT] * 3, [plain, shared, shared])
    print(json.dumps([list(output.outputs[0].token_ids) for output in outputs]))
    print(json.dumps(llm.collective_rpc("justenough_decisions", args=("shared",))))
    if V2:
        ids = json.loads(forced)
        # Its tokens are given, so that nothing can be stopped.
        gate["justenough"] = json.dumps(json.loads(gate["justenough"]) | {"threshold": -1.0})
        params = SamplingParams(
            temperature=0,
            max_tokens=len(ids),
            logprobs=20,
            trace_decode_token_ids=ids,
            extra_args=gate | {"justenough_id": "trace"},
        )
        (output,) = llm.generate(PROMPT, params)
        rows = [[each.logprob for each in row.values()] for row in output.outputs[0].logprobs]
        print(json.dumps({"ids": list(output.outputs[0].token_ids), "rows": rows}))
        print(json.dumps(llm.collective_rpc("justenough_decisions", args=("trace",))))


if __name__ == "__main__":
    main(*sys.argv[1:])
