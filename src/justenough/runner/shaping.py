"""What shapes a run: one digest for all of it, and in which settings two runs differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from justenough.backends.protocol import Backend
from justenough.errors import SettingsMismatch
from justenough.files import shown
from justenough.gate import GateSettings
from justenough.rules.live import LiveRule
from justenough.runner.runner import Runner, signal_of
from justenough.runner.settings import RunSettings
from justenough.trace import Json, Trace

UNRECORDED = "a setting that traces do not record: --steps, --max-tokens, --extend, --grader, --gate or the policy"


def settings_digest(
    backend: Backend,
    settings: RunSettings,
    *,
    grader: str,
    gate: GateSettings | None = None,
    rule: LiveRule | None = None,
    cascade: Backend | None = None,
) -> str:
    """SHA-256 of everything that shapes a run: model, prompts, settings, signal, grading, and gate or rule."""
    chosen = asdict(settings)
    if settings.branching is None:
        # So files that were begun before there were branches can be continued.
        del chosen["branching"]
    shaping: dict[str, Json] = {
        "model": backend.model,
        "prompts": asdict(backend.prompts),
        "settings": chosen,
        "signal": asdict(signal_of(backend, settings)),
        "grader": grader,
        "gate": None if gate is None else asdict(gate),
        "cascade": None if cascade is None else cascade.model,
    }
    if rule is not None:
        shaping["rule"] = {"name": rule.name, **asdict(rule)}
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def shaping_of(runner: Runner) -> dict[str, Json]:
    """What shapes the runs of a runner, for people; the digest is what counts."""
    return {
        "model": runner.backend.model,
        "prompts": runner.backend.prompts.to_json(),
        "settings": asdict(runner.settings),
        "signal": runner.signal.to_json(),
        "grader": type(runner.grader).__name__.lower(),
        "threshold": runner.gate.threshold,
        "rule": None if runner.rule is None else runner.rule.name,
    }


def recorded_in(trace: Trace) -> dict[str, Json]:
    """The part of `shaping_of` that a trace knows."""
    return {
        "model": trace.model,
        "prompts": None if trace.prompts is None else trace.prompts.to_json(),
        "settings": {"shape": trace.shape, "seed": trace.seed},
        "signal": trace.signal.to_json(),
        "rule": trace.extra.get("rule"),
    }


def other_settings(path: Path, old: Mapping[str, Json], new: Mapping[str, Json]) -> SettingsMismatch:
    """The error about a file of runs that were shaped by other settings; it names those that differ."""
    return SettingsMismatch(
        f"{path} holds runs of other settings: {', '.join(_differing(old, new)) or UNRECORDED}",
        hint="choose another --out, or delete that file to start again",
    )


def _differing(old: Mapping[str, Json], new: Mapping[str, Json]) -> Iterator[str]:
    for name in new:
        one, other = old.get(name), new[name]
        if name not in old or one == other:
            continue
        if name == "prompts":
            yield "prompts"
        elif isinstance(one, dict) and isinstance(other, dict):
            yield from _differing(one, other)
        else:
            yield f"{name} {shown(one)}, now {shown(other)}"
