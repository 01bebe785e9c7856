"""A program that uses the plugin in `ray.data.llm`; prints one JSON line. Run by `test_ray_llm.py`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def main(checkpoint: str, calibration: str) -> None:
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    # More CPUs than there are: the engine and each stage reserve some, and with two of them Ray waits for ever.
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": passed_on()})
    stage = {"enabled": True, "num_cpus": 0.2, "concurrency": 1}
    config = vLLMEngineProcessorConfig(
        model_source=checkpoint,
        engine_kwargs={
            "served_model_name": "justenough-embedded",
            "logits_processors": ["justenough:VLLMProcessor"],
            "reasoning_parser": "deepseek_r1",
            "dtype": "float32",
            "enforce_eager": True,
            "max_num_seqs": 4,
            "distributed_executor_backend": "mp",
        },
        concurrency=1,
        batch_size=4,
        chat_template_stage=stage,
        tokenize_stage=stage,
        detokenize_stage=stage,
        placement_group_config={"bundles": [{"CPU": 0.5}]},
        log_engine_metrics=False,
    )
    gate = {"justenough": Path(calibration).read_text()}

    def asked(row: dict[str, Any]) -> dict[str, Any]:
        params = {"temperature": 0, "max_tokens": 400} | ({"extra_args": gate} if row["gated"] else {})
        return {"messages": [{"role": "user", "content": row["problem"]}], "sampling_params": params}

    def answered(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "problem": row["problem"],
            "gated": row["gated"],
            "text": row["generated_text"],
            "tokens": row["num_generated_tokens"],
        }

    rows = [{"problem": problem, "gated": gated} for problem in ("47*36", "68*71") for gated in (False, True)]
    processor = build_processor(config, preprocess=asked, postprocess=answered)
    print(json.dumps(processor(ray.data.from_items(rows)).take_all()))


def passed_on() -> dict[str, str]:
    """Variables that the workers need."""
    ours = ("HF_", "VLLM_", "OMP_", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if name.startswith(ours)}


if __name__ == "__main__":
    main(*sys.argv[1:])
