"""Questions of `calibrate --ask`: answers that a person judges in the terminal, or in a JSONL file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from justenough.cli.terminal import safe
from justenough.errors import InputError
from justenough.files import write_text

if TYPE_CHECKING:
    from justenough.calibration.asking import Question
    from justenough.trace import Trace

BATCH: Final = 20
"""Questions that are written to the file at a time."""


class Judgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the file: an answer, and whether it is right; `right` is null until a person has filled it in."""

    id: str
    answer: str
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
        self._problems: dict[str, tuple[str | None, str | None]] | None = None
        self._lines = {(line.id, line.answer): line for line in _read(path)}
        self.open = 0
        """Questions without a judgement that came up."""

    def in_terminal(self, question: Question) -> bool:
        """The judgement of the file, or of the person at the terminal; raises `StoppedAsking` when they leave."""
        line = self._line(question)
        if line.right is not None:
            return line.right
        print(f"\nproblem {safe(line.id)}: {safe(line.problem or '(not recorded)')}", file=sys.stderr)
        if line.target is not None:
            print(f"target:  {safe(line.target)}", file=sys.stderr)
        print(f"answer:  {safe(line.answer)}", file=sys.stderr)
        while True:
            print("is it right? [y]es, [n]o, [q]uit: ", end="", file=sys.stderr, flush=True)
            given = sys.stdin.readline()
            if given == "" or given.strip().lower() in ("q", "quit"):
                raise StoppedAsking
            if given.strip().lower() in ("y", "yes", "n", "no"):
                return self._judge(line, right=given.strip().lower().startswith("y"))

    def in_file(self, question: Question) -> bool:
        """The judgement of the file. A new question is noted and taken as wrong, to find the next ones."""
        line = self._line(question)
        if line.right is None:
            self.open += 1
            if self.open == BATCH:
                raise StoppedAsking
        return line.right or False

    def save(self) -> None:
        """Write the file, whole or not at all."""
        write_text(self.path, "".join(f"{json.dumps(_json(line))}\n" for line in self._lines.values()))

    def _line(self, question: Question) -> Judgement:
        key = (question.id, question.answer)
        if key not in self._lines:
            if self._problems is None:
                self._problems = {trace.id: (trace.problem, trace.target) for trace in self._traces}
            problem, target = self._problems[question.id]
            self._lines[key] = Judgement(id=question.id, answer=question.answer, problem=problem, target=target)
        return self._lines[key]

    def _judge(self, line: Judgement, *, right: bool) -> bool:
        self._lines[line.id, line.answer] = msgspec.structs.replace(line, right=right)
        self.save()
        return right


def _json(line: Judgement) -> dict[str, str | bool | None]:
    return {name: getattr(line, name) for name in line.__struct_fields__}


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
        if not text.strip():
            continue
        try:
            lines.append(msgspec.json.decode(text, type=Judgement))
        except (msgspec.MsgspecError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: {error}", hint=hint) from error
    return lines
