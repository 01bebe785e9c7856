"""Which requests of web browsers are refused."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from justenough.errors import InputError
from justenough.gateway.app.browsers import Browsers, is_never_public
from justenough.gateway.settings import GatewaySettings
from tests.unit.gateway.serving import running

Headers = dict[str, str]
LOCAL = Browsers(local=True)
SITE = Browsers(local=True, origins=("https://chat.example.com",))


def code_of(browsers: Browsers, headers: Headers, method: str = "POST") -> str | None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    refused = browsers.refused(raw, method=method)
    return None if refused is None else refused.code


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "[::1]:8080", "localhost", "gateway", "a.local", "b.internal:1"])
def test_names_that_no_stranger_can_register(host: str) -> None:
    assert is_never_public(host)
    assert code_of(LOCAL, {"host": host}) is None


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "localhost.evil.example"])
def test_a_public_name_on_loopback_is_a_rebinding_attack(host: str) -> None:
    assert not is_never_public(host)
    assert code_of(LOCAL, {"host": host}) == "foreign_host"
    assert code_of(Browsers(local=False), {"host": host}) is None


@pytest.mark.parametrize(
    ("headers", "method", "code"),
    [
        ({"sec-fetch-site": "same-origin", "origin": "http://localhost"}, "POST", None),
        ({"sec-fetch-site": "none"}, "GET", None),
        ({"sec-fetch-site": "cross-site", "origin": "https://evil.example"}, "POST", "foreign_origin"),
        ({"sec-fetch-site": "same-site"}, "POST", "foreign_origin"),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, "GET", None),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, "POST", "foreign_origin"),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, "GET", "foreign_origin"),
        ({"origin": "http://localhost"}, "POST", None),
        ({"origin": "http://evil.example"}, "POST", "foreign_origin"),
        ({"origin": "null"}, "POST", "foreign_origin"),
        ({}, "POST", None),
    ],
)
def test_pages_of_other_sites_are_refused(headers: Headers, method: str, code: str | None) -> None:
    assert code_of(LOCAL, {"host": "localhost", **headers}, method) == code


def test_an_allowed_origin_may_do_everything() -> None:
    headers = {"host": "localhost", "origin": "https://Chat.example.com", "sec-fetch-site": "cross-site"}
    assert code_of(SITE, headers) is None
    assert code_of(LOCAL, headers) == "foreign_origin"
    assert code_of(SITE, {"host": "chat.example.com"}) is None


@pytest.mark.parametrize("origin", ["chat.example.com", "https://a/b", "*", ""])
def test_an_origin_is_a_scheme_and_a_host(origin: str) -> None:
    with pytest.raises(InputError, match="is no origin"):
        Browsers(origins=(origin,))


def test_refused_pages_are_counted_on_every_path() -> None:
    async def scenario() -> None:
        async with (
            running(GatewaySettings(upstream="http://127.0.0.1:9", mode="off")) as gateway,
            httpx.AsyncClient(base_url=gateway.url, headers={"host": "evil.example"}) as client,
        ):
            for path in ("/health", "/v1/models", "/"):
                answer = await client.get(path)
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_host")
            assert gateway.service.metrics.refused == {"foreign_host": 3}

    asyncio.run(scenario())
