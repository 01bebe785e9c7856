"""The gateway's counters for Prometheus, without keys, texts and client names."""

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
    """The gateway's own errors by code."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Completion requests by outcome: `stopped`, `finished`, `budget`, `answer_now`, `observed`, `audited` or
    `relayed`."""
    undecided: Counter[str] = field(default_factory=Counter)
    """Answers for which the gate could not decide, by reason."""
    observed: Counter[str] = field(default_factory=Counter)
    """Requests that were measured but could not be stopped, by reason; none where the mode is `observe`."""
    relayed: Counter[str] = field(default_factory=Counter)
    """Requests relayed without a gate, by reason."""
    tokens: int = 0
    """Completion tokens received under a gate."""
    cascade_tokens: int = 0
    """Completion tokens of the second model, not included in `tokens`."""
    recalibrations: int = 0
    """Calibrations that were applied automatically."""
    probe_tokens: int = 0
    """Completion tokens of elicited answers."""

    def lines(self, gauges: Mapping[str, float | None]) -> Iterator[str]:
        """The lines of the page."""
        totals = {
            "requests": ("Requests admitted.", self.requests),
            "client_disconnects": ("Clients that left before the end of their answer.", self.client_disconnects),
            "tokens": ("Completion tokens received under a gate.", self.tokens),
            "cascade_tokens": ("Completion tokens of the cascade's second model.", self.cascade_tokens),
            "recalibrations": ("Calibrations that were applied automatically.", self.recalibrations),
            "probe_tokens": ("Completion tokens of elicited answers.", self.probe_tokens),
        }
        for name, (text, value) in totals.items():
            yield from _family(f"justenough_{name}_total", "counter", text, [("", value)])
        labelled = {
            "errors": ("The gateway's own errors.", "code", self.refused),
            "outcomes": ("Completion requests by outcome.", "outcome", self.outcomes),
            "undecided": ("Answers for which the gate could not decide.", "note", self.undecided),
            "observed": ("Requests that were measured but could not be stopped.", "reason", self.observed),
            "relayed": ("Requests relayed without a gate.", "reason", self.relayed),
        }
        for name, (text, label, counts) in labelled.items():
            rows = [(f'{{{label}="{key}"}}', count) for key, count in sorted(counts.items())]
            yield from _family(f"justenough_{name}_total", "counter", text, rows)
        for name, gauge in gauges.items():
            if gauge is not None:
                yield from _family(f"justenough_{name}", "gauge", name.replace("_", " ") + ".", [("", gauge)])

    def text(self, gauges: Mapping[str, float | None]) -> bytes:
        """The page in Prometheus' text format."""
        return ("\n".join(self.lines(gauges)) + "\n").encode()


def _family(name: str, kind: str, text: str, rows: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in rows:
        yield f"{name}{labels} {value!r}"
