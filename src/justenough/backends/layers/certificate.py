"""The certified thresholds of exits and their scope: `certificate.json`, beside the weights of the exits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from justenough.backends.protocol import Request
from justenough.errors import InputError
from justenough.files import load_json, read_as, write_text
from justenough.stats.learn_then_test import Certificate

FILE: Final = "certificate.json"
LEVEL: Final = 0.05
"""The level that is used if several are certified."""
Risk = Literal["answers", "harm"]
"""The loss of a problem: its answer differs from that of the whole network, or a right answer becomes wrong."""
_HINT: Final = "run justenough exits certify, or give MEASURE@NUMBER without a certificate"


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
    exits: str
    """The digest of the weights of the exits."""
    dtype: str = "float32"
    """The precision of the network."""
    risk: Risk = "answers"
    """What is certified."""
    max_tokens: int | None = None
    """Limit of a step; None in certificates that do not say it."""
    layers: tuple[int, ...] | None = None
    """The layers with an exit behind them; None in certificates that do not say it."""

    def check(self, request: Request) -> None:
        """Raise `InputError` for a request outside the scope. The task is not known here."""
        begin, _, end = self.prompt.partition("{problem}")
        first = request.messages[0].content
        if request.temperature != self.temperature:
            wrong = f"temperature {self.temperature}, not {request.temperature}"
        elif request.key[1] > self.steps:
            wrong = f"steps up to {self.steps}, not step {request.key[1]}"
        elif self.max_tokens not in (None, request.max_tokens):
            wrong = f"steps of at most {self.max_tokens} tokens, not {request.max_tokens}"
        elif request.continue_final or not (first.startswith(begin) and first.endswith(end)):
            wrong = f"the request {self.prompt!r}, not {first!r}"
        else:
            return
        hint = f"use --shape sequential --steps {self.steps} --temperature {self.temperature}"
        hint += "" if self.max_tokens is None else f" --max-tokens {self.max_tokens}"
        raise InputError(
            f"the threshold is certified only for {wrong}", hint=f"{hint}, or a threshold without a certificate"
        )

    def check_model(self, *, tokenizer: str, exits: str, layers: tuple[int, ...], dtype: str) -> None:
        """Raise `InputError` if the checkpoint, its exits or its precision are others than those of the certificate."""
        named = {"tokenizer": tokenizer, "exits": exits, "layers": layers, "dtype": dtype}
        for what, value in named.items():
            if (mine := getattr(self, what)) not in (None, value):
                hint = f"use --dtype {mine}" if what == "dtype" else _HINT
                raise InputError(f"the certificate is about another {what}: {mine}, not {value}", hint=hint)


class Certified(msgspec.Struct, frozen=True, kw_only=True):
    """The certificates of one measure."""

    scope: Scope
    certificates: tuple[Certificate, ...]

    def threshold(self) -> float:
        """The threshold certified at `LEVEL`, or the only one; raises `InputError` if there is none."""
        settings = {certificate.level: certificate.setting for certificate in self.certificates}
        if len(settings) == 1:
            return next(iter(settings.values()))
        if LEVEL not in settings:
            hint = f"certified: {sorted(settings)}" if settings else _HINT
            raise InputError(f"nothing is certified at {LEVEL}", hint=hint)
        return settings[LEVEL]


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 of the checkpoint's `tokenizer.json`."""
    try:
        return hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{folder} has no readable tokenizer.json", hint="is the checkpoint complete?") from error


def write_certificates(exits: Path, measure: str, certificates: Sequence[Certificate], *, scope: Scope) -> None:
    """Write the certificates of a measure with their scope; those of other measures stay."""
    known = read_certificates(exits) if (exits / FILE).exists() else {}
    known |= {measure: Certified(scope=scope, certificates=tuple(certificates))}
    value = {
        name: {"scope": asdict(each.scope), "certificates": [asdict(one) for one in each.certificates]}
        for name, each in known.items()
    }
    write_text(exits / FILE, json.dumps(value, indent=2) + "\n")


def read_certificates(exits: Path) -> dict[str, Certified]:
    """The certificates of exits by measure; raises `InputError` if there are none or the file is not readable."""
    path = exits / FILE
    return read_as(load_json(path, hint=_HINT), dict[str, Certified], where=str(path), hint=_HINT)


def certified(exits: Path, measure: str | None) -> tuple[str, Certified]:
    """The measure and its certificates; without `measure`, the only one that the file has."""
    known = read_certificates(exits)
    if measure is None and len(known) == 1:
        measure = next(iter(known))
    if measure is None or measure not in known:
        raise InputError(f"{exits} has no certificate for {measure or 'one measure alone'}", hint=_certified(known))
    return measure, known[measure]


def _certified(known: dict[str, Certified]) -> str:
    return f"choose by --leave one of {', '.join(known)}" if known else _HINT
