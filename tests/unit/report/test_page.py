"""The HTML page: it has a strict policy, no address, and model output only as text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

from tests.reports import EVIL


class Page(HTMLParser):
    """Tags, attributes and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.raw: list[tuple[str, str]] = []
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._within = f"{tag} {dict(attrs).get('type', '')}".strip() if tag in ("script", "style") else ""

    def handle_data(self, data: str) -> None:
        if self._within:
            self.raw.append((self._within, data))
            self._within = ""

    def embedded(self, what: str) -> str:
        found = [text for within, text in self.raw if within == what]
        assert len(found) == 1
        return found[0]


def test_page_holds_nothing_of_a_models_making_but_text(forms: dict[str, str]) -> None:
    page = Page(forms["html"])
    assert page.tags.count("script") == 2
    assert not {"img", "b", "i", "iframe", "object"} & set(page.tags) - {"b"}
    assert "b" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]
    links = [value for _, name, value in page.attributes if name in ("href", "src")]
    assert [value for value in links if not value.startswith("#")] == ["data:,"]
    data = json.loads(page.embedded("script application/json"))
    assert data["problems"][0]["problem"] == EVIL
    assert data["problems"][0]["steps"][0]["texts"] == [EVIL, "<b>"]


def test_policy_allows_this_script_and_style_only(forms: dict[str, str]) -> None:
    page = Page(forms["html"])
    policy = next(value for tag, name, value in page.attributes if (tag, name) == ("meta", "content"))
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.embedded(kind).encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_no_address_in_the_page(forms: dict[str, str]) -> None:
    # The namespace of SVG is a name, not a place.
    text = forms["html"].replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?:|wss?:|@import|url\(|fetch\(|XMLHttpRequest|innerHTML|eval\(", text) == []
