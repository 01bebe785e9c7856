"""Collect from several models on several tasks, one after the other, so that a collection is always running.

    python -m benchmarks.real.campaign --cache ~/.cache/justenough-real smollm2-135m.capitals gemma3-270m.capitals
    python -m benchmarks.real.campaign --cache ~/.cache/justenough-real --publish smollm2-135m.capitals

A job is `MODEL.TASK` in the paper's shape (4 whole completions) or `MODEL.TASK.streaming`. Each obtains its weights,
writes its task file, serves the model, and runs `justenough collect` (or `benchmarks.real.stream`) against a recorder
that keeps the raw log-probabilities. Every part is resumable: the same command goes on where it was stopped.

`--publish` writes `benchmarks/results/real/JOB.parquet`. Of a collection that was stopped it takes the problems up to
the first one that is not finished: those that happened to finish early would be the short ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.real.leash import leashed
from benchmarks.real.packages import PackageError, catalogue, obtain
from benchmarks.real.plan import Task, tasks
from benchmarks.real.servers import RunError, ServerSettings, await_answer, llama, usable_port
from justenough.backends.protocol import CONTEXT
from justenough.trace import Trace, trace_from_json
from justenough.trace.files import read_traces, write_traces

RESULTS: Final = Path("benchmarks/results/real")
STEPS: Final = 4
"""Of a problem in the paper's shape."""


@dataclass(frozen=True, slots=True)
class Job:
    """One model on one task in one shape."""

    model: str
    task: str
    streaming: bool

    @staticmethod
    def named(name: str) -> Job:
        """From `MODEL.TASK` or `MODEL.TASK.streaming`; a model's name may hold dots."""
        plain, streaming = name.removesuffix(".streaming"), name.endswith(".streaming")
        model, _, task = plain.rpartition(".")
        if model not in catalogue() or task not in tasks():
            raise SystemExit(f"no job {name!r}: MODEL is one of {', '.join(catalogue())}, TASK of {', '.join(tasks())}")
        return Job(model, task, streaming)

    @property
    def name(self) -> str:
        """As given on the command line."""
        return f"{self.model}.{self.task}" + (".streaming" if self.streaming else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How all jobs of a campaign run."""

    cache: Path
    problems: int
    slots: int
    threads: int
    port: int
    temperature: float = 0.7
    steps: int = STEPS
    context: int = 3072


def run(job: Job, settings: Settings) -> None:
    """One collection to its end; raises `RunError` if it was stopped."""
    task = tasks()[job.task]
    runs = settings.cache / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    weights = obtain(catalogue()[job.model], settings.cache / "models")
    server = ServerSettings(slots=settings.slots, context=settings.context, threads=settings.threads)
    log = runs / f"{job.name}.server.log"
    with (
        llama(weights, server, port=settings.port, log=log) as upstream,
        _recording(upstream, runs / f"{job.name}.top20.jsonl.gz", port=settings.port + 1) as base,
        leashed(collector(job, task, settings, base=f"{base}/v1")) as process,
    ):
        code = process.wait()
    if code:
        raise RunError(f"{job.name} was stopped with exit code {code}: the same command goes on")


@contextmanager
def _recording(upstream: str, out: Path, *, port: int) -> Iterator[str]:
    """Run the recorder before a server; the recorder's address."""
    log = out.with_name(f"{out.name}.log")
    command = [sys.executable, "-m", "benchmarks.real.record", "--upstream", upstream, "--port", str(usable_port(port))]
    with leashed([*command, "--out", str(out)], log=log) as process:
        await_answer(f"http://127.0.0.1:{port}/v1/models", process, log=log)
        yield f"http://127.0.0.1:{port}"


def collector(job: Job, task: Task, settings: Settings, *, base: str) -> list[str]:
    """The command that collects."""
    path = settings.cache / "tasks" / f"{job.task}.jsonl"
    if task.lines is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in task.lines))
    common = ["--base-url", base, "--tasks", str(path), "--limit", str(settings.problems), "--grader", task.grader]
    common += ["--temperature", str(settings.temperature), "--max-tokens", str(task.max_tokens)]
    common += ["--out", str(settings.cache / "runs" / f"{job.name}.parquet")]
    if job.streaming:
        return [sys.executable, "-m", "benchmarks.real.stream", *common, "--concurrency", str(settings.slots)]
    collect = [sys.executable, "-m", "justenough", "collect", "--model", "openai:"]
    collect += ["--shape", "sequential", "--steps", str(settings.steps)]
    return [*collect, *common, "--concurrency", str(settings.slots)]


def publish(job: Job, cache: Path) -> Path:
    """Write the finished traces of a job where they are committed; returns the file."""
    source = cache / "runs" / f"{job.name}.parquet"
    if source.exists():
        traces: Sequence[Trace] = read_traces(source).traces
    else:
        order = [json.loads(line)["id"] for line in (cache / "tasks" / f"{job.task}.jsonl").read_text().splitlines()]
        steps = 1 if job.streaming else STEPS
        traces = finished_prefix(order, journaled(source.with_name(source.name + ".part.jsonl")), steps=steps)
    if tasks()[job.task].lines is None:
        traces = [without_texts(trace) for trace in traces]
    RESULTS.mkdir(parents=True, exist_ok=True)
    target = RESULTS / f"{job.name}.parquet"
    write_traces(traces, target)
    print(f"{len(traces)} problems in {target}, {target.stat().st_size / 1e6:.2f} MB")
    return target


def journaled(path: Path) -> list[Trace]:
    """The traces of a journal; half a line at its end is left out."""
    lines = path.read_bytes().split(b"\n")[1:-1]
    return [trace_from_json(json.loads(line)) for line in lines]


def finished_prefix(order: Sequence[str], traces: Sequence[Trace], *, steps: int) -> list[Trace]:
    """The traces of the problems before the first one without `steps` steps, in the order of the task.

    A journal also holds problems under way, once for each finished step. A conversation that is longer than the model's
    context is finished with fewer steps.
    """
    known = {each.id: each for each in traces if len(each.steps) >= steps or each.steps[-1].finish == CONTEXT}
    prefix: list[Trace] = []
    for identity in order:
        if identity not in known:
            break
        prefix.append(known[identity])
    return prefix


def without_texts(trace: Trace) -> Trace:
    """The trace without the problem's text and the steps' texts, which repeat it; answers and signals stay."""
    steps = tuple(
        replace(
            step,
            text="",
            token_texts=None,
            probe=None if step.probe is None else replace(step.probe, text=None, token_texts=None),
        )
        for step in trace.steps
    )
    return replace(trace, problem=None, steps=steps)


def main() -> int:
    """Run the jobs in turn, or publish them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", metavar="JOB")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "justenough-real")
    parser.add_argument("--publish", action="store_true", help="collect nothing, write what there is")
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--port", type=int, default=8301, help="the server's; the recorder takes the next one")
    options = parser.parse_args()
    jobs = [Job.named(name) for name in options.jobs]
    settings = Settings(
        cache=options.cache,
        problems=options.problems,
        slots=options.slots,
        threads=options.threads,
        port=options.port,
    )
    try:
        for job in jobs:
            if options.publish:
                publish(job, options.cache)
            else:
                print(f"{time.strftime('%H:%M:%S')} {job.name}", flush=True)
                run(job, settings)
    except (RunError, PackageError) as error:
        print(f"campaign: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
