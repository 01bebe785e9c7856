"""The page's files, where it is shown, and what keeps other web pages from driving the gateway."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from justenough.errors import InputError
from justenough.gateway.app.browsers import Browsers, is_never_public
from justenough.gateway.app.server import build_server
from justenough.gateway.page.routes import ASSETS, OFF, POLICY
from justenough.gateway.settings import GatewaySettings
from justenough.testing import MockUpstream
from tests.unit.gateway.serving import running

CHAT = json.dumps({"model": "mock", "messages": [{"role": "user", "content": "What is 6*7?"}]})
OWN = Path(str(files("justenough"))) / "gateway" / "page" / "assets"

Scenario = Callable[[httpx.AsyncClient, MockUpstream], Coroutine[None, None, None]]


def served(scenario: Scenario, *, playground: bool | None = None, allow_origins: tuple[str, ...] = ()) -> None:
    async def main() -> None:
        async with MockUpstream() as mock:
            settings = GatewaySettings(upstream=mock.url)
            async with (
                running(settings, playground=playground, allow_origins=allow_origins) as gateway,
                httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
            ):
                await scenario(client, mock)

    asyncio.run(main())


def test_every_file_is_served_under_the_strict_policy_and_only_these() -> None:
    async def scenario(client: httpx.AsyncClient, mock: MockUpstream) -> None:
        names = {file.name for file in OWN.iterdir()} | {"report.css"}
        for path in ("/", *(f"{ASSETS}/{name}" for name in names)):
            answer = await client.get(path)
            assert answer.status_code == 200, path
            assert answer.headers["content-security-policy"] == POLICY
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert not [name for name in answer.headers if name.startswith("access-control")]
            again = await client.get(path, headers={"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        assert (await client.head("/")).content == b""
        # Nothing else lies behind these addresses: what is no file of ours is the upstream's to know.
        outside = await client.get(f"{ASSETS}/..%2froutes.py")
        assert outside.status_code == 404
        assert mock.requests[-1].target == f"{ASSETS}/..%2froutes.py"

    served(scenario)


def test_the_policy_lets_nothing_in_from_elsewhere() -> None:
    rules = dict(rule.strip().split(" ", 1) for rule in POLICY.split(";"))
    assert rules["default-src"] == "'none'"
    assert {rules[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
    assert {rules[name] for name in ("base-uri", "form-action", "frame-ancestors", "trusted-types")} == {"'none'"}
    assert "unsafe" not in POLICY


def test_the_files_hold_no_inline_script_or_style_and_no_foreign_address() -> None:
    page = (OWN / "page.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page)
    for file in OWN.iterdir():
        text = file.read_text()
        addresses = [
            found for found in re.findall(r"https?://[^\s\"']+", text) if found != "http://www.w3.org/2000/svg"
        ]
        assert addresses == [], file.name
        if file.suffix == ".js":
            assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|Storage|cookie", text), (
                file.name
            )


@pytest.mark.parametrize("path", ["/", f"{ASSETS}/page.js"])
def test_where_it_is_off_a_sentence_says_so(path: str) -> None:
    async def scenario(client: httpx.AsyncClient, mock: MockUpstream) -> None:
        answer = await client.get(path)
        assert (answer.status_code, answer.text) == (404, OFF)
        assert answer.headers["content-type"].startswith("text/plain")
        assert all(request.target != path for request in mock.requests)
        assert (await client.post("/v1/chat/completions", content=CHAT)).status_code == 200

    served(scenario, playground=False)


@pytest.mark.parametrize(
    ("host", "asked", "shown"),
    [("127.0.0.1", None, True), ("127.0.0.1", False, False), ("0.0.0.0", None, False), ("0.0.0.0", True, True)],
)
def test_it_is_on_where_only_this_machine_can_see_it(host: str, asked: bool | None, shown: bool) -> None:
    settings = GatewaySettings(upstream="http://127.0.0.1:1")
    server, listener = build_server(settings, host=host, port=0, allow_remote=True, playground=asked)
    listener.close()
    assert server.config.app.browsers == Browsers(playground=shown, local=host == "127.0.0.1")  # type: ignore[union-attr]


def head(**headers: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]


LOCAL = "127.0.0.1:8080"
ADMITTED: dict[str, tuple[str, dict[str, str]]] = {
    "a program": ("POST", {"host": LOCAL}),
    "a program by another name of this machine": ("POST", {"host": "host.docker.internal:8080"}),
    "the page itself": ("POST", {"host": LOCAL, "origin": f"http://{LOCAL}", "sec_fetch_site": "same-origin"}),
    "the page in an old browser": ("POST", {"host": LOCAL, "origin": f"http://{LOCAL}"}),
    "the page by name": ("POST", {"host": "LocalHost:8080", "origin": "http://localhost:8080"}),
    "an address typed in": ("GET", {"host": LOCAL, "sec_fetch_site": "none", "sec_fetch_mode": "navigate"}),
    "a link followed": ("GET", {"host": LOCAL, "sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}),
    "a proxy that hides the name": (
        "POST",
        {"host": LOCAL, "origin": "https://c.example", "sec_fetch_site": "same-origin"},
    ),
}
REFUSED: dict[str, tuple[str, str, dict[str, str]]] = {
    "a name made to point here": ("foreign_host", "POST", {"host": "evil.example:8080"}),
    "the same, as its own origin": (
        "foreign_host",
        "POST",
        {"host": "evil.example:8080", "origin": "http://evil.example:8080", "sec_fetch_site": "same-origin"},
    ),
    "the same, only looking": ("foreign_host", "GET", {"host": "localhost.evil.example"}),
    "another site": (
        "foreign_origin",
        "POST",
        {"host": LOCAL, "origin": "https://evil.example", "sec_fetch_site": "cross-site"},
    ),
    "another site in an old browser": ("foreign_origin", "POST", {"host": LOCAL, "origin": "https://evil.example"}),
    "another port of this machine": (
        "foreign_origin",
        "POST",
        {"host": LOCAL, "origin": "http://127.0.0.1:3000", "sec_fetch_site": "same-site"},
    ),
    "a file or a sandbox": ("foreign_origin", "POST", {"host": LOCAL, "origin": "null"}),
    "a preflight": (
        "foreign_origin",
        "OPTIONS",
        {"host": LOCAL, "origin": "https://evil.example", "sec_fetch_site": "cross-site"},
    ),
    "a script's look": (
        "foreign_origin",
        "GET",
        {"host": LOCAL, "origin": "https://evil.example", "sec_fetch_site": "cross-site", "sec_fetch_mode": "cors"},
    ),
    "an image": ("foreign_origin", "GET", {"host": LOCAL, "sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}),
    "a form sent": (
        "foreign_origin",
        "POST",
        {"host": LOCAL, "origin": "null", "sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},
    ),
}


@pytest.mark.parametrize("name", ADMITTED)
def test_admitted(name: str) -> None:
    method, headers = ADMITTED[name]
    assert Browsers(local=True).refused(head(**headers), method=method) is None


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    code, method, headers = REFUSED[name]
    refused = Browsers(local=True).refused(head(**headers), method=method)
    assert refused is not None
    assert (refused.status, refused.code) == (403, code)
    assert "--allow-origin" in refused.message


def test_an_operator_lets_other_places_in_and_their_names() -> None:
    browsers = Browsers(local=True, origins=("https://Chat.example", "http://127.0.0.1:3000"))
    for headers in (
        {"host": LOCAL, "origin": "http://127.0.0.1:3000", "sec_fetch_site": "same-site"},
        {"host": "chat.example", "origin": "https://chat.example", "sec_fetch_site": "same-origin"},
        {"host": "chat.example"},
    ):
        assert browsers.refused(head(**headers), method="POST") is None
    other = {"host": LOCAL, "origin": "https://chat.example.evil", "sec_fetch_site": "cross-site"}
    assert browsers.refused(head(**other), method="POST") is not None


def test_beyond_loopback_any_name_may_be_the_gateways_but_no_other_page_may_use_it() -> None:
    browsers = Browsers(local=False)
    assert browsers.refused(head(host="gateway.example"), method="POST") is None
    assert browsers.refused(head(host="gateway.example", origin="https://evil.example"), method="POST") is not None


@pytest.mark.parametrize("wrong", ["chat.example", "https://chat.example/", "*", "https://", "https://a b"])
def test_an_origin_that_is_none_is_said(wrong: str) -> None:
    with pytest.raises(InputError, match="is no origin"):
        Browsers(origins=(wrong,))


@pytest.mark.parametrize(
    ("host", "safe"),
    [("127.0.0.1", True), ("10.1.2.3:80", True), ("[::1]:8080", True), ("[fe80::1]", True), ("localhost", True),
     ("a.localhost:1", True), ("gateway", True), ("nas.local", True), ("localhost.", True), ("evil.com", False),
     ("127.0.0.1.nip.io", False), ("local", True), ("xlocal.com:8080", False), ("1.2.3", False)],
)  # fmt: skip
def test_names_that_no_stranger_can_make_point_here(host: str, safe: bool) -> None:
    assert is_never_public(host) is safe


def test_a_foreign_page_reaches_nothing_at_all() -> None:
    """Neither the upstream, nor our own paths; and it is counted."""

    async def scenario(client: httpx.AsyncClient, mock: MockUpstream) -> None:
        before = len(mock.requests)
        foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site", "content-type": "text/plain"}
        for method, path in (
            ("POST", "/v1/chat/completions"),
            ("OPTIONS", "/v1/chat/completions"),
            ("GET", "/v1/justenough/status"),
            ("POST", "/v1/justenough/feedback"),
            ("GET", "/"),
        ):
            answer = await client.request(method, path, content=CHAT if method == "POST" else None, headers=foreign)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_origin"), path
            assert not [name for name in answer.headers if name.startswith("access-control")]
        assert len(mock.requests) == before
        assert 'justenough_errors_total{code="foreign_origin"} 5' in (await client.get("/metrics")).text

    served(scenario)
