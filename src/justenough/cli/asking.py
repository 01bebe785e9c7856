"""Questions of `calibrate --ask`: answers that a person judges in the terminal, or in a JSONL file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from justenough.cli.next_steps import after_calibration
from justenough.cli.terminal import print_json, say, show
from justenough.errors import InputError
from justenough.files import write_text
from justenough.stats.text import counted

if TYPE_CHECKING:
    from justenough.calibration.asking import Question
    from justenough.trace import Trace
    from justenough.trace.files import TraceFile

BATCH: Final = 20
"""Questions that are written to the file at a time."""


class Judgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the file: an answer, and whether it is right; `right` is null until a person has filled it in."""

    id: str
    answer: str
    task: str = ""
    problem: str | None = None
    target: str | None = None
    right: bool | None = None


class StoppedAsking(Exception):
    """The person has left, or the file has enough questions to fill in."""


class Judgements:
    """The file of judgements. Each one is written at once, so that no judgement is ever lost."""

    def __init__(self, path: Path, traces: Iterable[Trace]) -> None:
        self.path = path
        self._traces = traces
        self._problems: dict[tuple[str, str], tuple[str | None, str | None]] = {}
        self._lines = {(line.task, line.id, line.answer): line for line in _read(path)}
        self.open = 0
        """Questions without a judgement so far."""

    def in_terminal(self, question: Question) -> bool:
        """The judgement of the file, or of the person at the terminal; raises `StoppedAsking` when they leave."""
        line = self._line(question)
        if line.right is not None:
            return line.right
        target = "" if line.target is None else f"target:  {line.target}\n"
        say(f"\nproblem {line.id}: {line.problem or '(not recorded)'}\n{target}answer:  {line.answer}")
        while True:
            say("is it right? [y]es, [n]o, [q]uit: ", end="")
            text = sys.stdin.readline()
            reply = text.strip().lower()
            if text == "" or reply in ("q", "quit"):
                raise StoppedAsking
            if reply in ("y", "yes", "n", "no"):
                right = reply.startswith("y")
                self._lines[question] = msgspec.structs.replace(line, right=right)
                self.save()
                return right

    def in_file(self, question: Question) -> bool:
        """The judgement of the file. A new question is noted and counts as wrong, to get the next questions."""
        right = self._line(question).right
        if right is None:
            self.open += 1
            if self.open == BATCH:
                raise StoppedAsking
        return right or False

    @property
    def given(self) -> int:
        """Number of judgements in the file."""
        return sum(line.right is not None for line in self._lines.values())

    def save(self) -> None:
        """Write the file, whole or not at all."""
        lines = map(msgspec.structs.asdict, self._lines.values())
        write_text(self.path, "".join(f"{json.dumps(line)}\n" for line in lines))

    def _line(self, question: Question) -> Judgement:
        if question not in self._lines:
            self._problems = self._problems or {
                (trace.task, trace.id): (trace.problem, trace.target) for trace in self._traces
            }
            task, name, answer = question
            self._lines[question] = Judgement(name, answer, task, *self._problems[task, name])
        return self._lines[question]


def _read(path: Path) -> list[Judgement]:
    if not path.exists():
        return []
    hint = 'each line is {"id": "…", "answer": "…", "right": true or false}'
    try:
        texts = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}", hint=hint) from error
    lines: list[Judgement] = []
    for number, text in enumerate(texts, 1):
        try:
            if text.strip():
                lines.append(msgspec.json.decode(text, type=Judgement))
        except (msgspec.MsgspecError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: {error}", hint=hint) from error
    return lines


def ask(options: argparse.Namespace, traces: TraceFile) -> int:
    """Certify a threshold from the labels that a person gives; returns the exit code of `calibrate --ask`."""
    from justenough.calibration.asking import calibrate_by_asking
    from justenough.calibration.certified import RiskControlled

    if options.threshold != "risk":
        reason = f"--ask gives labels for a certificate of harm, and {options.threshold} needs all labels"
        raise InputError(reason, hint="--threshold risk")
    for name in ("labels", "grader"):
        if getattr(options, name) is not None:
            raise InputError(f"--ask takes the place of --{name}", hint=f"leave --{name} out")
    path = options.ask if options.ask != Path() else options.out.with_suffix(".labels.jsonl")
    judgements = Judgements(path, traces)
    terminal = sys.stdin.isatty() and not options.json
    try:
        calibration = calibrate_by_asking(
            traces,
            judgements.in_terminal if terminal else judgements.in_file,
            method=RiskControlled(max_harm=options.max_harm, confidence=options.confidence),
            n=options.n,
            seed=options.seed,
            pooling=options.pooling,
            decide=options.decide,
            min_tokens=options.min_tokens,
            patience=options.patience,
        )
    except StoppedAsking:
        calibration = None
    if calibration is None or judgements.open:
        if terminal:
            say(f"{path} keeps your judgements; the same command goes on")
        else:
            judgements.save()
            lines = counted(judgements.open, "line")
            say(f"{path}: fill in `right` (true or false) in {lines}, and run the same command again")
        return 1
    calibration.save(options.out)
    if options.json:
        print_json(calibration.to_json())
        return 0
    threshold, unit = calibration.threshold, calibration.signal.unit
    show(f"{options.out}: {calibration.method}, stop at or below {threshold:.4f} {unit}")
    show(f"{counted(calibration.judged or 0, 'label')}; full labelling would have taken {calibration.judged_in_full}")
    if judgements.given > (calibration.judged or 0):
        show(f"{path} holds {counted(judgements.given, 'judgement')}: some were not needed in the end")
    show(f"{calibration.guarantee}")
    show(after_calibration(calibration, options.traces, options.out))
    return 0
