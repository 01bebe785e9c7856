"""The certified margins of a checkpoint, in a small file beside its weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from justenough.errors import InputError
from justenough.files import load_json, read_as
from justenough.stats.learn_then_test import Certificate

FILE: Final = "calm.json"
LEVEL: Final = 0.05
"""The default risk: one answer in twenty may differ."""


def write_certificates(folder: Path, certificates: Sequence[Certificate], *, about: str) -> None:
    """Write the certificates, and in `about` the prompts and the temperature that they are valid for."""
    value = {"about": about, "certificates": [asdict(certificate) for certificate in certificates]}
    (folder / FILE).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_certificates(folder: Path) -> tuple[Certificate, ...]:
    """The certificates of a checkpoint; raises `InputError` if there are none or the file is not readable."""
    path = folder / FILE
    value = load_json(path, hint="run python -m training.calm, or give FOLDER@MARGIN")
    rows = value.get("certificates") if isinstance(value, dict) else None
    return tuple(read_as(rows, list[Certificate], where=f"{path}: certificates", hint="run python -m training.calm"))


def certified_margin(folder: Path, *, level: float = LEVEL) -> float:
    """The margin certified at a level of risk; raises `InputError` if there is none at this level."""
    margins = {certificate.level: certificate.setting for certificate in read_certificates(folder)}
    if level not in margins:
        raise InputError(f"no margin is certified at a risk of {level}", hint=f"certified: {sorted(margins) or 'none'}")
    return margins[level]
