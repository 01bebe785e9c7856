"""Keys: checked, replaced, and found nowhere that they do not belong."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from justenough.cli.serve import CASCADE_KEY, UPSTREAM_KEY
from justenough.errors import InputError
from justenough.gateway.settings import BudgetSettings, CascadeSettings, GatewaySettings, Limits
from justenough.testing import CONFIDENT, UNSURE, Fault, MockUpstream
from tests.unit.gateway.serving import running, served
from tests.unit.gateway.ways import CHAT, THOUGHT, WAYS, settings_for, settled

CLIENTS, UPSTREAMS, SECOND, WRONG = "sk-client", "sk-upstream", "sk-second", "sk-wrong"


async def asked(settings: GatewaySettings, *headers: dict[str, str]) -> list[httpx.Response]:
    """Answers to one chat with each of the headers, and to all that a gateway tells of itself."""
    async with running(settings) as gateway, httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
        answers = [
            await client.post("/v1/chat/completions", json={**CHAT, "stream": True}, headers=each) for each in headers
        ]
        paths = ("/", "/metrics", "/v1/justenough/status", "/openapi.json", "/health", "/ready", "/v1/models")
        answers += [await client.get(path, headers=headers[-1]) for path in paths]
        await settled(gateway)
        assert "sk-" not in repr(gateway.service.settings)
    return answers


@pytest.mark.parametrize("fault", [Fault.NONE, Fault.SERVER_ERROR, Fault.HALF_CHUNK, Fault.RESET_BEFORE_HEADERS])
@pytest.mark.parametrize("way", [*WAYS, "cascade"])
def test_no_key_is_logged_stored_or_shown(
    way: str, fault: Fault, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario() -> tuple[list[httpx.Response], list[str | None]]:
        async with MockUpstream(thought=THOUGHT, logprobs=(UNSURE,), fault=fault) as mock, MockUpstream() as second:
            settings = replace(
                settings_for("sequential" if way == "cascade" else way, mock.url),
                client_keys=(CLIENTS, "sk-other"),
                upstream_key=UPSTREAMS,
                budget=BudgetSettings(tokens=100_000, scope="key", file=tmp_path / "ledger.sqlite"),
                record=tmp_path / "traces.jsonl",
                recalibrated=tmp_path / "calibration.json",
                audit_share=1.0 if way == "streaming" else 0.0,
            )
            if way == "cascade":
                cascade = CascadeSettings(upstream=second.url, model="mock", key=SECOND)
                settings = replace(settings, extend="cascade", cascade=cascade)
            answers = await asked(
                settings, {"authorization": f"Bearer {WRONG}"}, {"authorization": f"Bearer {CLIENTS}"}
            )
            assert {request.headers.get("authorization") for request in second.completions} <= {f"Bearer {SECOND}"}
            return answers, [request.headers.get("authorization") for request in mock.completions]

    answers, sent = asyncio.run(scenario())
    assert answers[0].status_code == 401
    assert answers[0].json()["error"]["code"] == "invalid_api_key"
    assert set(sent) == {f"Bearer {UPSTREAMS}"}
    shown = "".join([f"{answer.headers}{answer.text}" for answer in answers])
    stored = b"".join([file.read_bytes() for file in tmp_path.iterdir()])
    printed = "".join(capfd.readouterr())
    assert stored
    for key in (CLIENTS, UPSTREAMS, SECOND, WRONG, "sk-other"):
        assert key not in shown
        assert key.encode() not in stored
        # The test's own client logs what it sends.
        assert not [record for record in caplog.records if record.name != "httpx" and key in record.getMessage()]
        assert key not in printed


@pytest.mark.parametrize(
    ("client_keys", "upstream_key", "sent"),
    [
        ((), None, "Bearer sk-client"),
        ((), UPSTREAMS, f"Bearer {UPSTREAMS}"),
        ((CLIENTS,), UPSTREAMS, f"Bearer {UPSTREAMS}"),
        ((CLIENTS,), None, None),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_the_upstream_gets_its_own_key_or_the_clients_but_never_the_gateways(
    way: str, client_keys: tuple[str, ...], upstream_key: str | None, sent: str | None
) -> None:
    async def scenario() -> list[str | None]:
        async with MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,)) as mock:
            settings = replace(settings_for(way, mock.url), client_keys=client_keys, upstream_key=upstream_key)
            answers = await asked(settings, {"authorization": f"Bearer {CLIENTS}"})
            assert answers[0].status_code == 200
            assert mock.completions
            return [request.headers.get("authorization") for request in mock.completions]

    assert set(asyncio.run(scenario())) == {sent}


@pytest.mark.parametrize("shown", [None, "", "Bearer", f"Bearer {CLIENTS}x", f"Basic {CLIENTS}", "Bearer \xff"])
def test_what_is_not_the_key_does_not_open(shown: str | None) -> None:
    async def scenario() -> Any:
        async with MockUpstream() as mock:
            settings = replace(settings_for("off", mock.url), client_keys=(CLIENTS,))
            headers = httpx.Headers({} if shown is None else {b"authorization": shown.encode("latin-1")})
            async with running(settings) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
                answers = [
                    await client.post("/v1/chat/completions", json=CHAT, headers=headers),
                    await client.get("/v1/models", headers=headers),
                    await client.post("/v1/justenough/feedback", json={"id": "x", "correct": True}, headers=headers),
                ]
                assert not mock.requests
                return {(answer.status_code, answer.json()["error"]["code"]) for answer in answers}

    assert asyncio.run(scenario()) == {(401, "invalid_api_key")}


@pytest.mark.parametrize("shown", [f"Bearer {CLIENTS}", f"bearer  {CLIENTS}", CLIENTS])
def test_the_key_opens_however_its_scheme_is_written(shown: str) -> None:
    async def scenario() -> None:
        async with MockUpstream() as mock:
            settings = replace(settings_for("off", mock.url), client_keys=(CLIENTS,))
            assert (await asked(settings, {"authorization": shown}))[0].status_code == 200

    asyncio.run(scenario())


def test_keys_come_from_the_environment_and_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(UPSTREAM_KEY, UPSTREAMS)
    monkeypatch.setenv(CASCADE_KEY, SECOND)
    file = tmp_path / "keys"
    file.write_text(f"{CLIENTS}\n\n  sk-other \nsk-odd\u00a0\r\n", encoding="utf-8")
    given = ["serve", "--upstream", "http://x", "--client-key-file", str(file)]
    cascade = ["--extend", "cascade", "--cascade-upstream", "http://y", "--cascade-model", "m"]
    settings = served(*given, *cascade)
    assert settings.upstream_key == UPSTREAMS
    assert settings.cascade is not None
    assert settings.cascade.key == SECOND
    assert settings.client_keys == (CLIENTS, "sk-other", "sk-odd\u00a0")
    file.write_text("\n")
    with pytest.raises(InputError, match="no key"):
        served(*given)
    monkeypatch.setenv(UPSTREAM_KEY, "")
    assert served(*given[:3]).upstream_key is None


def test_the_defaults_are_safe() -> None:
    settings, limits = served("serve", "--upstream", "http://x"), Limits()
    assert settings.limits == limits
    assert (settings.audit_share, settings.record, settings.apply_recalibration) == (0.02, None, False)
    assert (settings.upstream_key, settings.client_keys, settings.budget) == (None, (), None)
    bounds = [value for name, value in asdict(limits).items() if name != "max_request_tokens"]
    assert all(0 < bound < float("inf") for bound in bounds)
