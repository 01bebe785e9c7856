"""A request's arguments for the gate: `vllm_xargs` over HTTP, `SamplingParams(extra_args=…)` in Python.

vLLM does not tell a logits processor the ids of requests. `admit` runs where a request arrives and writes into its
arguments what the workers need: a key of its own and the text of its calibration.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol, cast
from uuid import uuid4

from justenough.calibration.calibration import Calibration, calibration_from_json
from justenough.errors import InputError, SignalMismatch
from justenough.files import Json, shown
from justenough.gate import GateSettings
from justenough.signal.signal import Signal

GATE: Final = "justenough"
"""1 for the server's calibration, the name of a calibration in the server's folder, or the text of a calibration."""
ID: Final = "justenough_id"
"""Name under which the client reads the decisions; by default the key."""
KEY: Final = "justenough_key"
VARIABLE: Final = "JUSTENOUGH_CALIBRATION"
"""Environment variable: the server's calibration file, or a folder of them."""

_NO_LIMIT: Final = 1_000_000_000
_ROUNDING: Final = 1e-6
_ID: Final = re.compile(r"[\w.:-]{1,128}")
_MOST_TEXT: Final = 4_000_000
_RAW: Final[Mapping[str, object]] = {
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "min_tokens": 0,
    "logit_bias": None,
    "allowed_token_ids": None,
    "bad_words": None,
}
"""Parameters that change the logits before the gate sees them, and the values that do not."""


class Params(Protocol):
    """The part of vLLM's `SamplingParams` that the gate reads."""

    n: int
    temperature: float
    extra_args: dict[str, object] | None


@dataclass(frozen=True, slots=True)
class Order:
    """A request that is to be gated."""

    key: str
    id: str
    calibration: Calibration

    @property
    def settings(self) -> GateSettings:
        """The gate of its thought, which may have any number of steps."""
        return replace(GateSettings.of(self.calibration), max_steps=_NO_LIMIT)


def admit(params: Params) -> None:
    """Check a new request and prepare its arguments; does nothing if it is not to be gated.

    Raises `InputError`, and `SignalMismatch` where the gate would measure another signal than its calibration.
    """
    args = params.extra_args or {}
    if not wants_gate(args):
        return
    if unknown := [name for name in args if name.startswith(GATE) and name not in (GATE, ID, KEY)]:
        raise InputError(f"unknown: {shown(', '.join(unknown))[1:-1]}", hint=f"{GATE} and {ID} are known")
    text = _text(args[GATE])
    signal = _calibration(text).signal
    if params.n != 1:
        raise InputError(f"n is {params.n}: the gate follows one completion", hint="send one request for each")
    for name, plain in _RAW.items():
        value = getattr(params, name, plain)
        if value != plain and value not in (None, [], {}):
            raise SignalMismatch(
                f"{name} is {value!r} and changes the logits that the gate measures",
                hint="leave it out; vLLM also takes defaults from the model: --generation-config vllm",
            )
    if signal.temperature is not None and not abs(signal.temperature - params.temperature) < _ROUNDING:
        raise SignalMismatch(
            f"the request's temperature is {params.temperature!r}, the calibration's {signal.temperature!r}",
            hint="send the calibration's temperature, or calibrate at this one",
        )
    key = uuid4().hex
    id = args.get(ID, key)
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise InputError(f"{ID} is {shown(id)}", hint="1 to 128 letters, digits, or . _ : -")
    # A new object: requests of one Python call share the old one.
    params.extra_args = {**args, GATE: text, ID: id, KEY: key}


def wants_gate(args: Mapping[str, object]) -> bool:
    """Whether a request with these arguments asks for the gate."""
    return args.get(GATE) not in (None, 0, "0")


def order_of(params: Params) -> Order | None:
    """The order of a request that was admitted; None if it is not to be gated."""
    args = params.extra_args or {}
    if not wants_gate(args) or KEY not in args:
        return None
    return Order(str(args[KEY]), str(args[ID]), _calibration(str(args[GATE])))


def check_server() -> None:
    """Raise `InputError` if the server's calibration cannot be used, so that a server does not start with it."""
    if (place := os.environ.get(VARIABLE)) and not Path(place).is_dir():
        _calibration(_text(1))


def _text(choice: object) -> str:
    """The text of the calibration that a request asks for."""
    if isinstance(choice, str) and choice.lstrip().startswith("{"):
        if len(choice) > _MOST_TEXT:
            raise InputError(f"{GATE} has {len(choice)} characters", hint=f"at most {_MOST_TEXT}")
        return choice
    place = os.environ.get(VARIABLE)
    if place is None:
        hint = f"start the server with {VARIABLE}=FILE, or send the text of a calibration file"
        raise InputError(f"{GATE} is {shown(choice)}, but the server has no calibration", hint=hint)
    path = Path(place)
    if choice not in (1, "1"):
        if not isinstance(choice, str) or Path(choice).name != choice or not path.is_dir():
            raise InputError(f"{GATE} is {shown(choice)}", hint=f"1, or the name of a file if {VARIABLE} is a folder")
        path /= choice
    elif path.is_dir():
        raise InputError(f"{GATE} is {choice!r}, but the server has several calibrations", hint="send a file's name")
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (OSError, ValueError) as error:
        # No file has a name with a NUL, or with half a character.
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"there is no calibration {shown(path.name)[1:-1]}: {reason}", hint=f"see {VARIABLE}"
        ) from error


@lru_cache(maxsize=64)
def _read(path: Path, _changed: int) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


@lru_cache(maxsize=64)
def _calibration(text: str) -> Calibration:
    """The calibration in a text; raises `InputError` if there is none, or one that the engine cannot use."""
    try:
        value = cast("Json", json.loads(text))
    except (ValueError, RecursionError) as error:
        raise InputError(f"the calibration is not JSON: {error}", hint="send the text of a calibration file") from error
    calibration = calibration_from_json(value)
    if calibration.shape != "streaming":
        raise SignalMismatch(
            f"the calibration is for {calibration.shape} steps, the engine gates one long thought",
            hint="collect with --shape streaming and calibrate on those traces",
        )
    require_measurable(calibration.signal)
    return calibration


def require_measurable(signal: Signal) -> None:
    """Raise `SignalMismatch` if a plugin in the engine cannot measure the signal: it has raw logits and no samples."""
    wrong = [
        f"{name} {value!r}"
        for name, value, right in (
            ("kind", signal.kind, signal.kind == "entropy"),
            ("logits", signal.logits, signal.logits != "processed"),
            ("pooling", signal.pooling, signal.needs == ("entropies",)),
        )
        if not right
    ]
    if wrong:
        raise SignalMismatch(
            f"the engine cannot measure the calibration's signal: {', '.join(wrong)}",
            hint="it measures entropies of raw logits; calibrate with a pooling of entropies, such as mean",
        )
