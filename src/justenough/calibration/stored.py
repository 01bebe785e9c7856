"""The fields of a calibration file, each checked; errors name the key."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, cast

from justenough.calibration.decider import decider_from_json
from justenough.errors import InputError
from justenough.gate import DECIDES
from justenough.prompts import prompts_from_json
from justenough.stats import Estimate
from justenough.trace import SHAPES, Json, signal_from_json

REMEDY: Final = "make it anew: justenough calibrate"

_CHOICES: Final = {"decide": DECIDES, "shape": SHAPES, "labels": ("graded", "agreement", "asked")}


def fields_from_json(
    value: Json, *, required: frozenset[str], optional: frozenset[str], where: str
) -> dict[str, object]:
    """The fields of a calibration's JSON object; files from before an optional field do not have its key."""
    if not isinstance(value, dict) or "threshold" not in value or "signal" not in value:
        raise InputError(f"{where} is no calibration", hint=REMEDY)
    if missing := sorted(required - value.keys()):
        raise InputError(f"{where} lacks {', '.join(missing)}", hint=REMEDY)
    fields: dict[str, object] = {key: value[key] for key in required | (optional & value.keys())}

    def check(keys: tuple[str, ...], fits: Callable[[Json], bool], expected: str) -> None:
        for key in keys:
            if key in fields and not fits(value[key]):
                raise InputError(f"{where}: {key} is {value[key]!r}, expected {expected}", hint=REMEDY)

    check(
        ("give_up", "threshold", "mean_right", "sd_right", "mean_wrong", "sd_wrong"), _is_number_or_null, "bits or null"
    )
    check(("max_harm", "confidence"), _is_fraction_or_null, "a number between 0 and 1, or null")
    for key, allowed in _CHOICES.items():
        check((key,), lambda entry, allowed=allowed: entry in allowed, f"one of {', '.join(allowed)}")  # type: ignore[misc]
    check(("model", "task", "method", "verdict", "data_fingerprint"), _is_text, "text")
    check(
        ("max_steps", "min_tokens", "patience", "n", "n_right", "n_wrong", "needed", "seed"),
        _is_whole,
        "a whole number",
    )
    check(
        ("rows", "problems", "judged", "judged_in_full"),
        lambda entry: entry is None or _is_whole(entry),
        "a whole number or null",
    )
    if not isinstance(value["signal"], dict):
        raise InputError(f"{where}: signal is no object", hint=REMEDY)
    if value["max_steps"] < 1 or value["patience"] < 1 or value["min_tokens"] < 0:  # type: ignore[operator]
        raise InputError(f"{where}: max_steps and patience are at least 1, min_tokens at least 0", hint=REMEDY)
    try:
        fields["signal"] = signal_from_json(value["signal"])
    except InputError as error:
        raise InputError(f"{where}: {error}", hint=REMEDY) from error
    prompts = value.get("prompts")
    fields["prompts"] = None if prompts is None else prompts_from_json(prompts, where=f"{where}: prompts")
    for key in ("decider", "outlook"):
        entry = value.get(key)
        fields[key] = None if entry is None else decider_from_json(entry, where=f"{where}: {key}")
    if (fields["outlook"] is None) is not (value.get("give_up") is None):
        raise InputError(f"{where}: outlook and give_up come together", hint=REMEDY)
    for key in ("cohens_d", "auroc", "auroc_within_groups"):
        fields[key] = _estimate_from_json(value[key], f"{where}: {key}")
    for key in ("warnings", "fitted_on"):
        entries = value[key]
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise InputError(f"{where}: {key} is no list of texts", hint=REMEDY)
        fields[key] = tuple(entries)
    for key, fits in (("thresholds", _is_number_or_null), ("threshold_outcomes", _is_text)):
        entries = value[key]
        if not isinstance(entries, dict) or not all(fits(entry) for entry in entries.values()):
            raise InputError(f"{where}: {key} is no object of a method's outcomes", hint=REMEDY)
    return fields


def _is_number_or_null(value: Json) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_fraction_or_null(value: Json) -> bool:
    return value is None or (isinstance(value, float) and 0 < value < 1)


def _is_whole(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Json) -> bool:
    return isinstance(value, str)


def _estimate_from_json(value: Json, where: str) -> Estimate | None:
    if value is None:
        return None
    if (
        not isinstance(value, dict)
        or set(value) != set(Estimate._fields)
        or not all(_is_number_or_null(entry) for entry in value.values())
        or value["value"] is None
        or not isinstance(value["n"], int)
    ):
        raise InputError(f"{where} is no estimate", hint=REMEDY)
    return Estimate(**cast("dict[str, float]", value))  # type: ignore[arg-type]
