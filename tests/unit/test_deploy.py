"""The files for operation: the container, the systemd unit, the settings and the dashboard fit the gateway."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest

from justenough.cli import serve
from justenough.cli.configuration import configured
from justenough.gateway.settings import GatewaySettings
from justenough.testing import MockUpstream
from tests.unit.gateway.serving import calibration_of, running
from tests.unit.gateway.test_gating import CHAT

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
UNIT = (ROOT / "deploy" / "justenough.service").read_text()


async def metrics() -> str:
    """`/metrics` of a gateway that has audited requests, where each count with labels has a row."""
    calibration = calibration_of(1.0)
    async with (
        MockUpstream(engine="vllm", metrics=True) as mock,
        running(GatewaySettings(upstream=mock.url, calibration=calibration, audit_share=1.0)) as gateway,
        httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client,
    ):
        assert (await client.post("/v1/chat/completions", json=CHAT)).json()["justenough"]["decision"] == "audited"
        counts = gateway.service.metrics
        for counter in (counts.refused, counts.undecided, counts.observed, counts.relayed):
            counter["any"] += 1
        # What a gateway shows after some time.
        gateway.service.learning.recalibration.fitted = calibration
        gateway.service.overshoot.tokens, gateway.service.overshoot.stops = 20, 10
        return (await client.get("/metrics")).text


def test_the_dashboard_shows_metrics_that_exist_with_labels_that_they_have() -> None:
    labels: dict[str, set[str]] = {}
    for line in asyncio.run(metrics()).splitlines():
        if found := re.fullmatch(r"(\w+)(?:\{(.*)\})? \S+", line):
            labels.setdefault(found[1], set()).update(re.findall(r"(\w+)=", found[2] or ""))
    dashboard = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    shown = set()
    for target in targets:
        (name,) = re.findall(r"justenough_\w+", target["expr"])
        shown.add(name)
        used = {*re.findall(r"by \((\w+)\)", target["expr"]), *re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])}
        assert name in labels, f"{name} is not in /metrics"
        assert used == labels[name], f"{name} has the labels {labels[name]}"
        assert ("rate(" in target["expr"]) is name.endswith("_total"), f"{name} is shown in the wrong way"
    assert len(shown) > 15
    variables = [variable["query"] for variable in dashboard["templating"]["list"]]
    assert all(name in labels for query in variables for name in re.findall(r"justenough_\w+", query))


def test_the_alerts_watch_metrics_that_exist() -> None:
    known = asyncio.run(metrics())
    page = (ROOT / "docs/how-to/monitor.md").read_text(encoding="utf-8")
    watched = set(re.findall(r"justenough_\w+", page))
    assert len(watched) == 3
    for name in watched:
        assert re.search(rf"^{name}[ {{]", known, flags=re.MULTILINE), f"{name} is not in /metrics"


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = json.loads((ROOT / "deploy" / "grafana.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23


def test_the_settings_of_the_unit_are_options() -> None:
    options = configured(
        argparse.Namespace(config=ROOT / "deploy" / "serve.toml"), serve.add_options, required="upstream"
    )
    assert (options.port, options.record_no_text) == (8080, True)
    command = re.search(r"^ExecStart=(.*)$", UNIT, flags=re.MULTILINE)
    assert command is not None
    assert command[1].split()[1:] == ["serve", "--config", "/etc/justenough/serve.toml"]
    # systemd must wait longer than the gateway does.
    stop = re.search(r"^TimeoutStopSec=(\d+)$", UNIT, flags=re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) > options.grace


def test_the_variables_of_the_container_are_options(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = dict(re.findall(r"(JUSTENOUGH_[A-Z_]+)=(\S+)", DOCKERFILE))
    assert variables == {"JUSTENOUGH_HOST": "0.0.0.0", "JUSTENOUGH_ALLOW_REMOTE": "true"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    options = configured(argparse.Namespace(upstream="http://x"), serve.add_options, required="upstream")
    assert (options.host, options.allow_remote) == ("0.0.0.0", True)


def test_the_container_copies_what_the_package_is_built_from() -> None:
    sources = [
        path for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for path in line.split()
    ]
    assert all((ROOT / path).exists() for path in sources)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(sources) == allowed
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"], "pyproject.toml", "src"} <= allowed
    assert re.search(r"^USER [1-9]\d*$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", DOCKERFILE, re.MULTILINE)


def test_the_gateway_needs_no_package_that_the_container_leaves_out() -> None:
    (removed,) = re.findall(r"uninstall --yes (\w+)", DOCKERFILE)
    code = (
        f"import sys; sys.modules[{removed!r}] = None\n"
        "import runpy, justenough.gateway.app.server, justenough.gateway.learn.recalibrate\n"
        "sys.argv = ['justenough', 'serve', '--upstream', 'http://127.0.0.1:9', '--host', '203.0.113.1']\n"
        "runpy.run_module('justenough', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    # It gets as far as the address that it may not listen on.
    assert (done.returncode, "--allow-remote" in done.stderr) == (2, True), done.stderr
