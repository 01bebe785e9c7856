"""lm-evaluation-harness: a task of three problems that its `local-chat-completions` asks, and its scores."""

from __future__ import annotations

import json
from pathlib import Path

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from tests.clients.ask import MODEL, SETTINGS, Results, ask_all

PROBLEMS = {"47*36": "1692", "28*83": "2324", "19*43": "817"}


def task(folder: Path) -> dict[str, object]:
    data = folder / "problems.jsonl"
    data.write_text(
        "".join([json.dumps({"question": text, "answer": right}) + "\n" for text, right in PROBLEMS.items()])
    )
    number = {"function": "regex", "regex_pattern": "Answer: (-?[0-9]+)"}
    return {
        "task": "arithmetic_by_thought",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {
            "until": [],
            "max_gen_toks": SETTINGS["max_tokens"],
            "temperature": 0,
            "do_sample": False,
        },
        "filter_list": [{"name": "answer", "filter": [number, {"function": "take_first"}]}],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }


async def asking(url: str) -> Results:
    arguments = f"model={MODEL},base_url={url}/v1/chat/completions,num_concurrent=1,max_retries=1"
    done = simple_evaluate(
        "local-chat-completions",
        model_args=arguments,
        tasks=[task(Path.cwd())],
        task_manager=TaskManager(include_defaults=False),
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    samples = [
        {"question": sample["doc"]["question"], "text": sample["resps"][0][0], "right": sample["exact_match"]}
        for sample in done["samples"]["arithmetic_by_thought"]
    ]
    return {"samples": samples, "score": done["results"]["arithmetic_by_thought"]["exact_match,answer"]}


if __name__ == "__main__":
    ask_all(asking)
