"""inspect_ai: a model asked whole, streamed and for log-probabilities, and an evaluation with a score."""

from __future__ import annotations

import sys
from pathlib import Path

from inspect_ai import Task, eval_async
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig, Model, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import SolverSpec

from justenough.integrations.inspect import gated
from tests.clients.ask import MODEL, QUESTION, SETTINGS, Results, ask_all


def model(url: str, *, stream: bool = False) -> Model:
    name = f"openai-api/justenough/{MODEL}"
    config = GenerateConfig(**SETTINGS)
    return get_model(name, config=config, base_url=f"{url}/v1", api_key="none", stream=stream)


async def asking(url: str) -> Results:
    logprobs = GenerateConfig(logprobs=True, top_logprobs=20)
    task = Task(dataset=[Sample(QUESTION, target=str(47 * 36))], scorer=includes(), config=logprobs)
    # The logs of each server have their own folder, named after its place in the command.
    folder = Path(sys.argv[1]).parent / f"logs-{sys.argv.index(url)}"
    (log,) = await eval_async(task, model(url), log_dir=str(folder), log_format="json", epochs=2, max_samples=1)
    # Its samples are read from their file when they are looked at.
    samples = [[sample.output, sample.scores] for sample in log.samples or []]
    return {
        "solver": await solving(url, folder) if url == sys.argv[-1] else None,
        "whole": await model(url).generate(QUESTION),
        "streamed": await model(url, stream=True).generate(QUESTION),
        "logprobs": await model(url).generate(QUESTION, config=logprobs),
        "evaluation": [log.status, samples, log.results],
    }


async def solving(url: str, folder: Path) -> list[object]:
    """What the solver keeps of each sample: gated, within a budget, and not gated."""
    task = Task(dataset=[Sample(QUESTION, target=str(47 * 36))], scorer=includes())
    kept: list[object] = []
    # As `-S mode=observe` and `-S mode=off` give them: in YAML, `off` is false.
    observing, off = (SolverSpec("justenough/gated", args_passed={"mode": mode}) for mode in ("observe", False))
    for number, solver in enumerate((gated(), gated(budget=20), observing, off)):
        # One after the other: the solver of each epoch must see its own calls only.
        place = str(folder / f"solver-{number}")
        (log,) = await eval_async(task, model(url), solver=solver, log_dir=place, epochs=2, max_samples=2)
        kept += [[sample.store, sample.output.usage] for sample in log.samples or []]
    return kept


if __name__ == "__main__":
    ask_all(asking)
