"""The certified margins of a checkpoint and their scope, in a small file beside its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TypeVar

from justenough.backends.protocol import Request
from justenough.errors import InputError
from justenough.files import load_json, read_as
from justenough.stats.learn_then_test import Certificate

_T = TypeVar("_T")
FILE: Final = "calm.json"
LEVEL: Final = 0.05
"""The default risk: one answer in twenty may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The runs that a certificate is valid for."""

    task: str
    temperature: float
    steps: int
    """Sequential steps of a problem."""
    prompt: str
    """The request of the first step; `{problem}` stands for the problem."""
    tokenizer: str
    """The `tokenizer_digest` of the checkpoint."""

    def check(self, request: Request) -> None:
        """Raise `InputError` for a request outside the scope. The task is not known here."""
        begin, _, end = self.prompt.partition("{problem}")
        first = request.messages[0].content
        if request.temperature != self.temperature:
            wrong = f"temperature {self.temperature}, not {request.temperature}"
        elif request.key[1] > self.steps:
            wrong = f"steps up to {self.steps}, not step {request.key[1]}"
        elif request.continue_final or not (first.startswith(begin) and first.endswith(end)):
            wrong = f"the request {self.prompt!r}, not {first!r}"
        else:
            return
        hint = f"use --shape sequential --steps {self.steps} --temperature {self.temperature}"
        raise InputError(
            f"the margin is certified only for {wrong}", hint=f"{hint}, or FOLDER@MARGIN without a certificate"
        )


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 of the checkpoint's `tokenizer.json`."""
    try:
        return hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{folder} has no readable tokenizer.json", hint="is the checkpoint complete?") from error


def write_certificates(folder: Path, certificates: Sequence[Certificate], *, scope: Scope) -> None:
    """Write the certificates with the scope in which they are valid."""
    value = {"scope": asdict(scope), "certificates": [asdict(certificate) for certificate in certificates]}
    (folder / FILE).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_certificates(folder: Path) -> tuple[Certificate, ...]:
    """The certificates of a checkpoint; raises `InputError` if there are none or the file is not readable."""
    return tuple(_read(folder, "certificates", list[Certificate]))


def read_scope(folder: Path) -> Scope:
    """The scope of the certificates; raises `InputError` if it names another tokenizer than the checkpoint has."""
    scope = _read(folder, "scope", Scope)
    if scope.tokenizer != tokenizer_digest(folder):
        raise InputError(f"{folder / FILE} is about another tokenizer", hint="run python -m training.calm")
    return scope


def _read(folder: Path, key: str, kind: type[_T]) -> _T:
    path = folder / FILE
    value = load_json(path, hint="run python -m training.calm, or give FOLDER@MARGIN")
    part = value.get(key) if isinstance(value, dict) else None
    return read_as(part, kind, where=f"{path}: {key}", hint="run python -m training.calm")


def certified_margin(folder: Path, *, level: float = LEVEL) -> float:
    """The margin certified at a level of risk; raises `InputError` if there is none at this level."""
    margins = {certificate.level: certificate.setting for certificate in read_certificates(folder)}
    if level not in margins:
        raise InputError(f"no margin is certified at a risk of {level}", hint=f"certified: {sorted(margins) or 'none'}")
    return margins[level]
