"""Counters of what the gateway did, as Prometheus reads them. No key, no text, nothing of a client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Metrics:
    """Counts since the start."""

    requests: int = 0
    client_disconnects: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Our own errors, by code."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Requests that a gate could have been asked for: `stopped`, `finished`, `observed`, `audited`, `relayed`."""
    undecided: Counter[str] = field(default_factory=Counter)
    """Answers in which the gate could not decide where it should have, by what was wrong."""
    relayed: Counter[str] = field(default_factory=Counter)
    """Relayed without a gate, by reason."""
    tokens: int = 0
    """Completion tokens received under a gate."""
    cascade_tokens: int = 0
    """Completion tokens of the second model; not among `tokens`."""
    recalibrations: int = 0
    """Calibrations applied while running."""
    probe_tokens: int = 0
    """Completion tokens of elicited answers."""

    def lines(self, gauges: Mapping[str, float | None]) -> Iterator[str]:
        """The Prometheus text format."""
        totals = {
            "requests": ("Requests admitted.", self.requests),
            "client_disconnects": ("Clients that left before their answer was whole.", self.client_disconnects),
            "tokens": ("Completion tokens received under a gate.", self.tokens),
            "cascade_tokens": ("Completion tokens of the cascade's second model.", self.cascade_tokens),
            "recalibrations": ("Calibrations applied while running.", self.recalibrations),
            "probe_tokens": ("Completion tokens of elicited answers.", self.probe_tokens),
        }
        for name, (text, value) in totals.items():
            yield from _family(f"justenough_{name}_total", "counter", text, [("", value)])
        labelled = {
            "errors": ("The gateway's own errors.", "code", self.refused),
            "outcomes": ("What became of requests that could be gated.", "outcome", self.outcomes),
            "undecided": ("Answers in which the gate lacked what it decides on.", "note", self.undecided),
            "relayed": ("Requests relayed without a gate.", "reason", self.relayed),
        }
        for name, (text, label, counts) in labelled.items():
            rows = [(f'{{{label}="{key}"}}', count) for key, count in sorted(counts.items())]
            yield from _family(f"justenough_{name}_total", "counter", text, rows)
        for name, gauge in gauges.items():
            if gauge is not None:
                yield from _family(f"justenough_{name}", "gauge", name.replace("_", " ") + ".", [("", gauge)])

    def text(self, gauges: Mapping[str, float | None]) -> bytes:
        """The whole page."""
        return ("\n".join(self.lines(gauges)) + "\n").encode()


def _family(name: str, kind: str, text: str, rows: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in rows:
        yield f"{name}{labels} {value!r}"
