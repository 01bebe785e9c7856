"""The Prometheus page."""

from __future__ import annotations

from justenough.gateway.metrics import Metrics


def test_counters_labels_and_gauges_in_prometheus_format() -> None:
    metrics = Metrics(requests=3, tokens=12)
    metrics.outcomes.update({"stopped": 2, "finished": 1})
    lines = metrics.text({"threshold": 0.1, "drifted": 0, "audited_saving_low": None}).decode().splitlines()
    assert "justenough_requests_total 3" in lines
    assert "justenough_tokens_total 12" in lines
    assert "# TYPE justenough_outcomes_total counter" in lines
    assert [line for line in lines if line.startswith("justenough_outcomes_total")] == [
        'justenough_outcomes_total{outcome="finished"} 1',
        'justenough_outcomes_total{outcome="stopped"} 2',
    ]
    assert "# TYPE justenough_threshold gauge" in lines
    assert "justenough_threshold 0.1" in lines
    assert "justenough_drifted 0" in lines
    assert "audited_saving_low" not in "".join(lines)


def test_every_family_has_a_help_text_and_a_type_before_its_values() -> None:
    metrics = Metrics()
    metrics.relayed["off"] = 1
    seen: set[str] = set()
    for line in metrics.lines({"active_requests": 1.0}):
        if line.startswith("# "):
            seen.add(line.split()[2])
        else:
            assert line.partition("{")[0].partition(" ")[0] in seen
    assert "justenough_active_requests" in seen
