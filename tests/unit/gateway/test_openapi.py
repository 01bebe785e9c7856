"""The OpenAPI description is true to the code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import httpx
import msgspec
import pytest

import justenough
from justenough.gateway.apis.registry import APIS
from justenough.gateway.app.server import Application
from justenough.gateway.control import Control
from justenough.gateway.exchange import Refused
from justenough.gateway.learn.feedback import Label
from justenough.gateway.page.routes import ASSETS, page
from justenough.gateway.place import KINDS, OTHERS, Kind, Place
from justenough.gateway.request import CompletionRequest, _read, read_request
from justenough.gateway.settings import GatewaySettings
from justenough.testing import MockUpstream
from tests.unit.gateway.serving import calibration_of, running

TOLD: dict[str, Any] = json.loads(files("justenough").joinpath("gateway", "openapi.json").read_text())
SCHEMAS: dict[str, Any] = TOLD["components"]["schemas"]
RELAYED = {*KINDS, *OTHERS, "/v1/models"}
"""Paths that go to the upstream and are described all the same."""


def methods() -> dict[str, set[str]]:
    """Of each path that has a route of its own."""
    found: dict[str, set[str]] = {}
    for route in Application(GatewaySettings(upstream="http://127.0.0.1:1")).routes:
        if allowed := getattr(route, "methods", None):
            found.setdefault(getattr(route, "path"), set()).update(allowed - {"HEAD"})  # noqa: B009
    return found


def test_the_paths_are_those_of_the_routes() -> None:
    own = {path: allowed for path, allowed in methods().items() if not path.startswith(ASSETS)}
    described = {path: {method.upper() for method in operations} for path, operations in TOLD["paths"].items()}
    (template,) = [path for path in described if path.startswith(ASSETS)]
    assert described.pop(template) == {"GET"}
    assert {path: described.pop(path) for path in RELAYED} == {
        path: {"GET"} if path == "/v1/models" else {"POST"} for path in RELAYED
    }
    assert described == own
    (name,) = TOLD["paths"][template]["get"]["parameters"]
    assert {f"{ASSETS}/{each}" for each in name["schema"]["enum"]} == set(page(shown=True)) - {"/"}


class Watched(dict[str, msgspec.Raw]):
    """A body that knows which members were looked at."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.seen: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.seen.add(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.seen.add(str(key))
        return super().__contains__(key)

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("then it would be unknown which members are looked at")


@pytest.mark.parametrize(("path", "schema"), [("/v1/chat/completions", "Chat"), ("/v1/completions", "Completion")])
def test_the_members_are_those_that_are_read(path: str, schema: str) -> None:
    fields = Watched({"messages": msgspec.Raw(b'[{"role":"user"}]'), "prompt": msgspec.Raw(b'""')})
    asked = CompletionRequest(place=Place(kind=KINDS[path]), fields=fields, body=b"", control=Control())
    read = _read(asked)
    assert read.relay_reason is None
    assert read.problem is None or schema == "Completion"
    assert set(SCHEMAS[schema]["properties"]) == fields.seen | {"justenough"}


@pytest.mark.parametrize(("kind", "schema"), [("response", "Response"), ("message", "MessagesRequest")])
def test_the_limits_of_other_apis_are_described(kind: Kind, schema: str) -> None:
    others = {"background", "input", "messages", "model"}
    assert set(SCHEMAS[schema]["properties"]) - others == {APIS[kind].length, "justenough"}


@pytest.mark.parametrize(("path", "schema"), [("/v1/chat/completions", "Chat"), ("/v1/completions", "Completion")])
def test_a_member_of_another_type_than_described_cannot_be_read(path: str, schema: str) -> None:
    examples: dict[str, Any] = {
        "string": "x",
        "boolean": True,
        "integer": 3,
        "number": 0.5,
        "array": ["text"],
        "object": {},
        "null": None,
    }
    right: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "prompt": "x"}
    typed = 0
    for name, told in SCHEMAS[schema]["properties"].items():
        if "$ref" in told:
            told = SCHEMAS[told["$ref"].rpartition("/")[2]]
        kinds = told.get("type")
        if name in ("justenough", "messages", "logprobs") or kinds is None:
            continue
        kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        for kind, value in examples.items():
            body = json.dumps({**right, name: value}).encode()
            fits = kind in kinds or (kind == "integer" and "number" in kinds)
            assert read_request(path, body, []).readable is fits, (name, kind)
            typed += 1
    assert typed > 50


@pytest.mark.parametrize(("struct", "schema"), [(Control, "Control"), (Label, "Feedback")])
def test_our_own_objects_are_described_as_they_are_decoded(struct: type[msgspec.Struct], schema: str) -> None:
    _, made = msgspec.json.schema_components([struct])
    (code,) = made.values()
    described = SCHEMAS[schema]
    assert set(described["properties"]) == set(code["properties"])
    assert set(described.get("required", ())) == set(code["required"])
    assert described["additionalProperties"] is code["additionalProperties"] is False
    for name, told in code["properties"].items():
        parts = told.get("anyOf", [told])
        if names := [value for part in parts for value in part.get("enum", ())]:
            assert {*names, None} == set(described["properties"][name]["enum"])
            continue
        theirs = {part["type"] for part in parts}
        ours = described["properties"][name]
        kinds = {"string", "null"} if "enum" in ours else {ours["type"]} if isinstance(ours["type"], str) else None
        assert (kinds or set(ours["type"])) == theirs, name


@pytest.mark.parametrize("path", KINDS)
def test_a_whole_number_may_be_written_with_a_point(path: str) -> None:
    right: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "prompt": "x"}
    control = {"max_steps": 3.0, "budget": 1e2, "threshold": 1}
    asked = read_request(path, json.dumps({**right, "max_tokens": 5.0, "n": 1.0, "justenough": control}).encode(), [])
    assert (asked.relay_reason, asked.max_tokens) == (None, 5)
    assert (asked.control.max_steps, asked.control.budget, asked.control.threshold) == (3, 100, 1.0)
    assert not read_request(path, json.dumps({**right, "max_tokens": 5.5}).encode(), []).readable
    with pytest.raises(Refused, match="max_steps"):
        read_request(path, json.dumps({**right, "justenough": {"max_steps": 3.5}}).encode(), [])


def test_headers_say_what_the_object_says() -> None:
    headers = {each["name"]: each["schema"] for each in TOLD["components"]["parameters"].values()}
    members = SCHEMAS["Control"]["properties"]
    assert set(headers) == {f"x-justenough-{name.replace('_', '-')}" for name in members if name != "decisions"}
    for name, told in headers.items():
        member = members[name.removeprefix("x-justenough-").replace("-", "_")]
        assert told.get("minimum") == member.get("minimum")
        assert set(told.get("enum", ())) == set(member.get("enum", ())) - {None}


def test_it_is_served_by_every_gateway_and_names_its_version() -> None:
    async def scenario() -> None:
        async with MockUpstream() as mock, running(GatewaySettings(upstream=mock.url), playground=False) as gateway:
            async with httpx.AsyncClient(base_url=gateway.url) as client:
                answer = await client.get("/openapi.json")
                assert answer.headers["content-type"] == "application/json; charset=utf-8"
                assert answer.json() == TOLD
            assert "/openapi.json" not in [request.target for request in mock.requests]

    asyncio.run(scenario())
    assert TOLD["info"]["version"] == justenough.__version__


def test_a_path_of_ours_takes_no_other_method() -> None:
    async def scenario() -> None:
        async with MockUpstream() as mock, running(GatewaySettings(upstream=mock.url)) as gateway:
            async with httpx.AsyncClient(base_url=gateway.url) as client:
                for path, allowed in methods().items():
                    for method in {"GET", "POST", "PUT", "DELETE", "TRACE"} - allowed:
                        answer = await client.request(method, path.replace("{name}", "page.js"))
                        assert answer.status_code == 405, (method, path)
                        assert answer.json()["error"]["code"] == "method_not_allowed"
                        assert allowed <= set(answer.headers["allow"].split(", "))
            assert not [request for request in mock.requests if request.target in methods()]

    asyncio.run(scenario())


def test_every_member_of_status_and_report_is_described() -> None:
    chat = {"model": "mock", "messages": [{"role": "user", "content": "What is 6*7?"}]}

    async def scenario() -> None:
        async with MockUpstream() as mock:
            settings = GatewaySettings(upstream=mock.url, calibration=calibration_of(1.0), audit_share=0.0)
            async with running(settings) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
                wanted = {"decisions": True, "budget": 100}
                answer = await client.post("/v1/chat/completions", json={**chat, "justenough": wanted})
                told = answer.json()["justenough"]
                assert told["decision"] == "stopped"
                assert set(SCHEMAS["Report"]["required"]) <= set(told) <= set(SCHEMAS["Report"]["properties"])
                for each in told["decisions"]:
                    rows = SCHEMAS["Decision"]
                    assert set(rows["required"]) <= set(each) <= set(rows["properties"])
                shown = (await client.get("/v1/justenough/status")).json()
                assert set(shown) == set(SCHEMAS["Status"]["properties"]) == set(SCHEMAS["Status"]["required"])

    asyncio.run(scenario())
