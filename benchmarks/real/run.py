"""The whole story on one real language model: `make real`, or

    python -m benchmarks.real.run --model smollm2-135m --problems 60 --out real

Obtains the weights, serves them with llama.cpp, collects, diagnoses, calibrates, evaluates, and answers further
problems by the server alone and through `justenough serve`. Writes `report.html` and `summary.json` into `--out`.
After any stop, kill −9 included, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.real.leash import environment, leashed
from benchmarks.real.live import Client, Live, Record, Way, run_live
from benchmarks.real.packages import PackageError, catalogue, obtain
from benchmarks.real.plan import DEFAULT, PLANS, Plan, Shape, Task, WarmUp, forecast, minutes, plan_of, tasks
from benchmarks.real.prompts import plugin
from benchmarks.real.result import Outcome, page_with_live, summary_of, table
from benchmarks.real.servers import RunError, gateway, llama, require_extras
from justenough.errors import JustEnoughError
from justenough.files import write_text
from justenough.grading import open_grader, read_tasks
from justenough.trace import Json
from justenough.trace.files import read_traces

CACHE: Final = Path.home() / ".cache" / "justenough-real"
_DONE, _NO = 0, 1
_MIDWAY: Final = 3


class CommandFailed(RunError):
    """A command of `justenough` failed and has printed why."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"`justenough {name}` ended with exit code {code}; its message is above")
        self.code = code


class Story:
    """One plan with its task, its weights and its folder; the task has lines."""

    def __init__(self, plan: Plan, task: Task, *, weights: Path, out: Path, port: int = 0) -> None:
        lines = task.lines or ()
        require_problems(plan, task)
        self.plan = plan
        self.weights = weights
        self.out = out
        self.port = port
        self.grader = task.grader
        out.mkdir(parents=True, exist_ok=True)
        self.path = plugin(out / "plugin")
        self.tasks = out / f"{plan.task}.jsonl"
        write_text(self.tasks, "".join(f"{line}\n" for line in lines))
        problems = read_tasks(str(self.tasks))
        self.collected = problems[: plan.problems]
        # From the end: they stay the same for another number of collected ones.
        self.unseen = problems[-plan.live :]

    def run(self) -> dict[str, Json]:
        """From the server to the report; returns the summary."""
        begun = time.monotonic()
        outcomes: dict[Shape, Outcome] = {}
        with llama(self.weights, self.plan.server, port=self.port, log=self.out / "server.log") as url:
            model = str(_got(f"{url}/v1/models")["data"][0]["id"])
            warm = self._warm_up(url, model)
            say(forecast(self.plan, warm, {shape: self._left(shape) for shape in self.plan.prompts}))
            for shape in self.plan.prompts:
                outcomes[shape] = self._shape(shape, url, model)
        seconds = time.monotonic() - begun
        summary = summary_of(self.plan, outcomes, about=self._about(model), warm=warm, seconds=seconds)
        self._report(outcomes, warm=warm, seconds=seconds)
        write_text(self.out / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
        print(table(outcomes))
        print(f"{self.out / 'report.html'} and {self.out / 'summary.json'}, {minutes(seconds)}")
        return summary

    def _traces(self, shape: Shape) -> Path:
        return self.out / f"{self.plan.name}.{shape}.parquet"

    def _record(self, shape: Shape) -> Path:
        return self.out / f"{self.plan.name}.{shape}.live.jsonl"

    def _about(self, model: str) -> dict[str, Json]:
        pinned = catalogue().get(self.plan.model)
        return {
            "served_as": model,
            "file": self.weights.name,
            "sha256": None if pinned is None else pinned.sha256,
            "licence": None if pinned is None else pinned.licence,
            "cores": os.cpu_count(),
        }

    def _warm_up(self, url: str, model: str) -> WarmUp:
        """Answer a few problems once, one alone and then all slots together."""
        client = Client(url, self.plan, shape=next(iter(self.plan.prompts)), model=model)
        try:
            problems = self.collected[: self.plan.server.slots]
            say(f"warm-up: {len(problems) + 2} answers of at most {self.plan.max_tokens} tokens")
            # The first answer waits for the weights to be read from the disk.
            client.first_tokens(url, problems[-1])
            begun = time.monotonic()
            single = client.first_tokens(url, problems[0])
            alone = time.monotonic() - begun
            begun = time.monotonic()
            with ThreadPoolExecutor(len(problems)) as pool:
                counts = list(pool.map(lambda problem: client.first_tokens(url, problem), problems))
            together = time.monotonic() - begun
        finally:
            client.close()
        return WarmUp(
            tokens=max(1.0, sum(counts) / len(counts)),
            together=max(1, sum(counts)) / together,
            alone=max(1, single) / alone,
        )

    def _left(self, shape: Shape) -> tuple[int, int]:
        """Problems that are still to be collected, and to be run live."""
        path = self._traces(shape)
        whole = self.plan.steps if shape == "sequential" else 1
        kept = len(read_traces(path).traces) if path.exists() else 0
        journal = _lines(path.with_name(f"{path.name}.part.jsonl"))
        kept += len({row.get("id") for row in journal if len(row.get("steps", ())) >= whole})
        ways = len(_lines(self._record(shape)))
        return max(0, self.plan.problems - kept), max(0, self.plan.live - ways // 2)

    def _shape(self, shape: Shape, url: str, model: str) -> Outcome:
        plan, traces = self.plan, self._traces(shape)
        say(f"{shape}: collecting {plan.problems} problems")
        collect = ["collect", "--model", f"openai:{model}", "--base-url", f"{url}/v1", "--shape", shape]
        collect += ["--tasks", str(self.tasks), "--limit", str(plan.problems), "--steps", str(plan.steps)]
        collect += ["--grader", self.grader, "--prompts", plan.prompts[shape], "--out", str(traces)]
        collect += ["--temperature", str(plan.temperature), "--max-tokens", str(plan.max_tokens)]
        collect += ["--concurrency", str(plan.server.slots)]
        collect += ["--splitter", plan.splitter] if shape == "streaming" else []
        with leashed(_command(collect), path=[self.path]) as process:
            code = process.wait()
        if code != _DONE:
            raise CommandFailed("collect", code)
        diagnosis = self._asked(["diagnose", str(traces)])
        calibration, refusal = self._calibrated(shape)
        evaluation = self._asked(["evaluate", str(traces)])
        live = None if calibration is None else self._live(shape, url, model)
        return Outcome(
            traces=traces,
            diagnosis=diagnosis,
            evaluation=evaluation,
            calibration=calibration,
            refusal=refusal,
            live=live,
        )

    def _calibration(self, shape: Shape) -> Path:
        return self.out / f"{self.plan.name}.{shape}.calibration.json"

    def _calibrated(self, shape: Shape) -> tuple[dict[str, Json] | None, str | None]:
        """The calibration on all collected problems, and why it was refused without `--force`.

        Where the signal is not there, the gate still runs live, to show what it does then.
        """
        command = ["calibrate", str(self._traces(shape)), "--out", str(self._calibration(shape)), "--json"]
        refusal = None
        for force in ([], ["--force"]):
            done = self._ran([*command, *force])
            if done.returncode == _DONE:
                return json.loads(done.stdout), refusal
            refusal = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return None, refusal

    def _live(self, shape: Shape, url: str, model: str) -> Live:
        plan, calibration = self.plan, self._calibration(shape)
        say(f"{shape}: {plan.live} further problems, each by the server alone and through the gateway")
        digest = hashlib.sha256(calibration.read_bytes() + repr(plan).encode()).hexdigest()
        log = self.out / f"gateway.{shape}.log"
        client, grader = Client(url, plan, shape=shape, model=model), open_grader(self.grader)
        try:
            with gateway(url, calibration, grader=self.grader, log=log) as gated:
                record = Record(self._record(shape), digest=digest)
                urls: dict[Way, str] = {"alone": url, "gateway": gated}
                return run_live(client, record, self.unseen, urls, grader=grader, progress=say)
        finally:
            grader.close()
            client.close()

    def _report(self, outcomes: dict[Shape, Outcome], *, warm: WarmUp, seconds: float) -> None:
        """`report.html`, with all live comparisons; a second shape has a page of its own for its traces."""
        for number, (shape, outcome) in enumerate(outcomes.items()):
            path = self.out / ("report.html" if number == 0 else f"report-{shape}.html")
            done = self._ran(["report", str(outcome.traces), "--out", str(path)])
            if done.returncode != _DONE:
                raise CommandFailed(f"report: {done.stderr.strip()}", done.returncode)
            sections = list(outcomes.items()) if number == 0 else [(shape, outcome)]
            page = path.read_text(encoding="utf-8")
            write_text(path, page_with_live(page, sections, warm=warm, seconds=seconds))

    def _asked(self, arguments: Sequence[str]) -> dict[str, Json]:
        """The JSON object of a command; exit code 1 is an answer too."""
        done = self._ran([*arguments, "--json"])
        if done.returncode not in (_DONE, _NO):
            raise CommandFailed(f"{arguments[0]}: {done.stderr.strip()}", done.returncode)
        value: dict[str, Json] = json.loads(done.stdout)
        return value

    def _ran(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            _command(arguments), capture_output=True, text=True, check=False, env=environment([self.path])
        )


def say(text: str) -> None:
    """Print progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "justenough", *arguments]


def _got(url: str) -> dict[str, Any]:
    try:
        value: dict[str, Any] = httpx.get(url, timeout=30, trust_env=False).json()
    except httpx.HTTPError as error:
        raise RunError(f"{url} did not answer: {error or type(error).__name__}") from error
    return value


def _lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a journal without its first line; a last line without its end is left out.

    Raises `RunError` for another line that is no JSON.
    """
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[1:-1], 2):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise RunError(f"{path}:{number} is not JSON: delete this line, and run again") from error
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a plan; one line on stderr says what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models, names = (sorted({key[at] for key in PLANS}) for at in (0, 1))
    parser.add_argument("--model", choices=models, default=DEFAULT, help=f"default {DEFAULT}")
    parser.add_argument("--task", choices=names, help="default: the model's usual one")
    parser.add_argument("--problems", type=int, help="problems to collect (default: by the plan)")
    parser.add_argument("--live", type=int, help="further problems, for the live part (default: by the plan)")
    parser.add_argument("--shape", choices=("sequential", "streaming"), help="only this shape (default: all)")
    parser.add_argument("--out", type=Path, default=Path("real"), help="folder of the results (default real)")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"folder of the weights (default {CACHE})")
    parser.add_argument("--port", type=int, default=0, help="port of the model's server (default: a free one)")
    parser.add_argument("--threads", type=int, help="of the server (default: one for each core, at most 2)")
    options = parser.parse_args(arguments)
    started = False
    try:
        require_extras()
        plan = planned(options)
        say(f"{plan.model} on {plan.task}: {plan.problems} problems, {', '.join(plan.prompts)}")
        task = tasks()[plan.task]
        # Before the download.
        require_problems(plan, task)
        weights = obtain(catalogue()[plan.model], options.cache / "models")
        story = Story(plan, task, weights=weights, out=options.out, port=options.port)
        started = True
        story.run()
    except KeyboardInterrupt:
        say("real: interrupted; the same command goes on")
        return 130
    except CommandFailed as error:
        say(f"real: {error}")
        return error.code
    except (RunError, PackageError, JustEnoughError) as error:
        say(f"real: {error}")
        return 2
    except OSError as error:
        goes_on = "; the same command goes on" if started else ""
        say(f"real: {error.filename or options.out}: {error.strerror or error}{goes_on}")
        return _MIDWAY if started else 2
    return 0


def require_problems(plan: Plan, task: Task) -> None:
    """Raise `RunError` if a task has too few problems for a plan."""
    size = len(task.lines or ())
    if plan.problems < 1 or plan.live < 1 or plan.problems + plan.live > size:
        raise RunError(
            f"{plan.problems} problems and {plan.live} live ones: at least 1 of each, and {plan.task} has {size}"
        )


def planned(options: argparse.Namespace) -> Plan:
    """The plan of the arguments."""
    plan = plan_of(options.model, options.task)
    if options.threads is not None and options.threads < 1:
        raise RunError(f"{options.threads} threads: use at least 1")
    if not 0 <= options.port < 1 << 16:
        raise RunError(f"port {options.port} does not exist: choose one from 1 to 65535, or 0 for a free one")
    threads = options.threads or min(2, os.cpu_count() or 1)
    plan = replace(plan, server=replace(plan.server, threads=threads))
    if options.problems is not None:
        plan = replace(plan, problems=options.problems)
    if options.live is not None:
        plan = replace(plan, live=options.live)
    if options.shape is not None:
        if options.shape not in plan.prompts:
            raise RunError(f"{plan.model} has no {options.shape} shape: it writes no cue that would end its thought")
        plan = replace(plan, prompts={options.shape: plan.prompts[options.shape]})
    return plan


if __name__ == "__main__":
    sys.exit(main())
