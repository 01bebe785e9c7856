"""What a run on a real model comes to: the summary, a table for people, and the live part of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Final

from benchmarks.real.live import Live
from benchmarks.real.plan import Plan, Shape, WarmUp, minutes
from justenough.stats import Estimate
from justenough.trace import Json

_HEADLINE: Final = ("problems", "accuracy_first", "accuracy_full", "tokens_full", "saving", "accuracy_change")
_LEFT_OUT: Final = "fitted_on"
"""Hashes of the problems that a calibration was fitted on; they stay in its own file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One shape of a run."""

    traces: Path
    diagnosis: dict[str, Json]
    evaluation: dict[str, Json]
    calibration: dict[str, Json] | None
    """None: no threshold can be fitted."""
    refusal: str | None
    """Why `calibrate` refused without `--force`, or altogether."""
    live: Live | None
    """None without a calibration."""


def summary_of(
    plan: Plan, outcomes: Mapping[Shape, Outcome], *, about: Mapping[str, Json], warm: WarmUp, seconds: float
) -> dict[str, Json]:
    """The object of `summary.json`."""
    return {
        "model": plan.model,
        **about,
        "task": plan.task,
        "plan": _json(asdict(plan)),
        "warm_up": _json(asdict(warm)),
        "seconds": seconds,
        "shapes": {
            shape: {
                "traces": outcome.traces.name,
                **{key: outcome.evaluation.get(key) for key in _HEADLINE},
                "verdict": outcome.diagnosis["verdict"],
                "threshold": None if outcome.calibration is None else outcome.calibration["threshold"],
                "calibration_refused": outcome.refusal,
                "live": None if outcome.live is None else _json(asdict(outcome.live)),
                "diagnose": outcome.diagnosis,
                "calibrate": None
                if outcome.calibration is None
                else {key: value for key, value in outcome.calibration.items() if key != _LEFT_OUT},
                "evaluate": outcome.evaluation,
            }
            for shape, outcome in outcomes.items()
        },
    }


def _json(value: object) -> Json:
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form")


def live_rows(live: Live) -> list[tuple[str, str, str]]:
    """The live comparison: what, by the server alone, through the gateway."""
    return [
        ("problems", f"{live.problems}", f"{live.problems}"),
        ("right", f"{live.accuracy_alone:.1%}", f"{live.accuracy_gateway:.1%}"),
        ("difference, points", "", _interval(live.accuracy_change, points=True)),
        ("tokens generated, by the server's counter", f"{live.tokens_alone:,}", f"{live.tokens_gateway:,}"),
        ("tokens saved", "", _interval(live.saving)),
        ("prompt tokens read", f"{live.prompt_tokens_alone:,}", f"{live.prompt_tokens_gateway:,}"),
        ("time", f"{live.seconds_alone:.1f} s", f"{live.seconds_gateway:.1f} s"),
        ("time saved", "", _interval(live.time_saving)),
        ("decisions of the gateway", "", ", ".join(f"{count} {name}" for name, count in live.decisions.items())),
    ]


def _interval(estimate: Estimate | None, *, points: bool = False) -> str:
    if estimate is None:
        return "–"
    numbers = [estimate.value, estimate.low, estimate.high]
    value, low, high = ("–" if each is None else f"{100 * each:+.1f}" if points else f"{each:.1%}" for each in numbers)
    return f"{value} [{low} to {high}]"


def table(outcomes: Mapping[Shape, Outcome]) -> str:
    """The result for a terminal."""
    lines: list[str] = []
    for shape, outcome in outcomes.items():
        found = outcome.evaluation
        lines += [
            f"{shape}: {found['problems']} problems, right at step 1 {_share(found['accuracy_first'])},"
            f" after all {_share(found['accuracy_full'])}; signal: {outcome.diagnosis['verdict']}"
        ]
        if outcome.refusal is not None:
            lines.append(f"  calibration refused: {outcome.refusal}")
        if outcome.live is None:
            lines.append("  not run live: there is no threshold")
            continue
        rows = [("live", "server alone", "gateway"), *live_rows(outcome.live)]
        lines += [f"  {what:42} {alone:>14}  {gated}" for what, alone, gated in rows]
    return "\n".join(lines)


def _share(value: Json) -> str:
    return f"{value:.1%}" if isinstance(value, float) else "–"


def page_with_live(page: str, sections: Sequence[tuple[str, Outcome]], *, warm: WarmUp, seconds: float) -> str:
    """The report with a section on the live comparison of each shape, given as (title, outcome), at its end."""
    parts = []
    for title, outcome in sections:
        parts.append(f"<h3>{escape(title)}</h3>")
        if outcome.live is None:
            parts.append("<p>Not run: there is no threshold.</p>")
            continue
        body = "".join(
            f"<tr><th scope='row'>{escape(what)}</th><td>{escape(alone)}</td><td>{escape(gated)}</td></tr>"
            for what, alone, gated in live_rows(outcome.live)
        )
        head = "<tr><th></th><th scope='col'>server alone</th><th scope='col'>through the gateway</th></tr>"
        parts.append(f"<table><thead>{head}</thead><tbody>{body}</tbody></table>")
    note = (
        f"Other problems than those above, one request at a time. Intervals are 95 %. The run took"
        f" {escape(minutes(seconds))}, at {warm.together:.0f} tokens/s."
    )
    section = f"<section><h2>Live</h2><p>{note}</p>{''.join(parts)}</section>\n"
    head, end, tail = page.rpartition("</main>")
    return head + section + end + tail if end else page + section
