"""The whole workflow on the embedded model: collect, calibrate on ten examples, evaluate, stop live, report."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, cast

from justenough.calibration.calibration import Calibration, calibrate
from justenough.errors import InputError, Interrupted
from justenough.evaluation import Evaluation, Recommendation, evaluate, recommend
from justenough.evaluation.diagnosis import Diagnosis, diagnose
from justenough.files import write_error, write_text
from justenough.gate import GateSettings
from justenough.grading import Exact, Problem, read_tasks
from justenough.report import write_report
from justenough.runner import Run, Runner, RunSettings, equals_replay
from justenough.runner.collect import Progress, collect, run_all
from justenough.toy.backend import EmbeddedBackend
from justenough.toy.notation import MODELS
from justenough.trace import Json, Trace
from justenough.trace.files import read_traces

EXAMPLES: Final = 10
SEED: Final = 0
STEPS: Final = 2
"""An attempt and a check. Further steps of the embedded model spoil more answers than they mend."""
LABELLED: Final = "calibration-traces.parquet"
SIBLINGS: Final = MODELS[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The number of problems in each part."""

    held_out: int = 600
    labelled: int = 300
    live: int = 240
    siblings: int = 300


QUICK: Final = Sizes(held_out=180, labelled=120, live=60, siblings=120)


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A live gated run, and a run of all steps on the same problems in the same process."""

    problems: int
    equal_to_replay: int
    """Problems whose live run has the same tokens, bits and answer as the replay."""
    seconds_gated: float
    seconds_full: float
    tokens_gated: int
    tokens_full: int
    right_gated: int
    right_full: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """All results of the demo."""

    evaluation: Evaluation
    calibration: Calibration
    recommendation: Recommendation
    percentile: float
    """Share of the calibration draws that save less than the draw shown, which has seed 0."""
    live: Live
    siblings: dict[str, Diagnosis]

    def to_json(self) -> dict[str, Json]:
        """The content of `summary.json`: the keys of the evaluation and those of the demo."""
        chosen = self.recommendation
        return self.evaluation.to_json() | {
            "draw_percentile": self.percentile,
            "recommended": {
                "threshold": chosen.settings.threshold,
                "pooling": chosen.settings.signal.pooling,
                "decide": chosen.settings.decide,
                "labels": chosen.n,
                "max_loss": chosen.max_loss,
            },
            "live": cast("dict[str, Json]", asdict(self.live)),
            "siblings": {name: diagnosis.to_json() for name, diagnosis in self.siblings.items()},
        }


async def run_demo(out: Path, *, sizes: Sizes | None = None, progress: Callable[[str], Progress], command: str) -> Demo:
    """Run the demo and write `traces.parquet`, `calibration.json`, `summary.json` and `report.html` into `out`.

    An interrupted demo continues where it stopped: traces in `out` are not collected again.
    """
    sizes = sizes or Sizes()
    settings = RunSettings(max_steps=STEPS)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(out, error) from error
    backend = EmbeddedBackend()
    # The decoder uses one core. The public command collects the other traces on another core.
    others = asyncio.create_task(_collect_others(out, sizes))
    try:
        problems = read_tasks("arithmetic", limit=sizes.held_out)
        path = out / "traces.parquet"
        await collect(problems, path, backend=backend, settings=settings, progress=progress("traces"))
        traces = read_traces(path).traces
        await others
        labelled = read_traces(out / LABELLED).traces
        calibration = calibrate(labelled, n=EXAMPLES, seed=SEED)
        write_text(out / "calibration.json", calibration.dumps())
        recommendation = recommend(labelled, seed=SEED)
        evaluation = evaluate(
            traces, calibration=calibration, pool=labelled, recommended=recommendation.settings, seed=SEED
        )
        live = await _live(backend, settings, calibration, traces[: sizes.live], progress)
    finally:
        others.cancel()
        await asyncio.gather(others, return_exceptions=True)
        await backend.close()
    saving = evaluation.gated.saving
    demo = Demo(
        evaluation=evaluation,
        calibration=calibration,
        recommendation=recommendation,
        percentile=evaluation.draws.percentile(saving.value if saving is not None else 0.0),
        live=live,
        siblings={name: diagnose(read_traces(out / f"{name}.parquet").traces) for name in SIBLINGS},
    )
    summary = demo.to_json()
    write_text(out / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    shown = {key: summary[key] for key in ("live", "siblings", "recommended", "draw_percentile")}
    write_report(evaluation, traces, out / "report.html", calibration=calibration, command=command, demo=shown)
    return demo


async def _collect_others(out: Path, sizes: Sizes) -> None:
    """Collect the labelled problems, and step 1 of the siblings, in another process."""
    await collect_in_process("embedded", "arithmetic-calibration", sizes.labelled, out / LABELLED, steps=STEPS)
    for name in SIBLINGS:
        await collect_in_process(f"embedded:{name}", "arithmetic", sizes.siblings, out / f"{name}.parquet", steps=1)


async def collect_in_process(model: str, task: str, limit: int, out: Path, *, steps: int) -> None:
    """Run `justenough collect` in another process; an interrupted run continues from its finished problems.

    Raises `InputError` if the process could not use its input, such as a file with other settings, and `Interrupted` if
    it failed in another way.
    """
    command = f"-m justenough collect --model {model} --tasks {task} --limit {limit} --steps {steps} --out".split()
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, str(out), stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
    )
    try:
        _, output = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    lines = output.decode(errors="replace").strip().splitlines() or ["no message"]
    if process.returncode == 2:
        raise InputError(f"collecting {out.name}: {lines[-1]}")
    if process.returncode != 0:
        raise Interrupted(
            f"collecting {out.name} ended with exit code {process.returncode}: {lines[-1]}",
            hint="run the same command again to continue",
        )


async def _live(
    backend: EmbeddedBackend,
    settings: RunSettings,
    calibration: Calibration,
    recorded: list[Trace],
    progress: Callable[[str], Progress],
) -> Live:
    """Run with real stops, and run all steps on the same problems, so that the times are comparable."""
    problems = [
        Problem(id=trace.id, problem=trace.problem or trace.id, target=trace.target, task=trace.task)
        for trace in recorded
    ]

    async def timed(gate: GateSettings | None, what: str) -> tuple[list[Run], float]:
        runner = Runner(backend, settings, grader=Exact(), gate=gate)
        start = time.monotonic()
        runs = await run_all(runner, problems, concurrency=backend.concurrency, progress=progress(what))
        return runs, time.monotonic() - start

    full, seconds_full = await timed(None, "live, all steps")
    gated, seconds_gated = await timed(GateSettings.of(calibration), "live, gated")
    return Live(
        problems=len(problems),
        equal_to_replay=sum(equals_replay(run, trace) for run, trace in zip(gated, recorded, strict=True)),
        seconds_gated=seconds_gated,
        seconds_full=seconds_full,
        tokens_gated=sum(run.trace.tokens for run in gated),
        tokens_full=sum(run.trace.tokens for run in full),
        right_gated=sum(run.trace.steps[-1].is_correct for run in gated),
        right_full=sum(run.trace.steps[-1].is_correct for run in full),
    )
