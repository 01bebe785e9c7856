"""The HTML page: it has a strict policy, no address, and model output only as text."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from justenough.report.advice import advice
from justenough.report.data import Contents
from justenough.report.page import html_page
from justenough.report.rulesheets import RULES
from justenough.report.templates import meaning
from tests.reports import EVIL, Case, contents_of


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
        result = [text for within, text in self.raw if within == what]
        assert len(result) == 1
        return result[0]


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


def test_a_value_of_each_kind_is_escaped(case: Case) -> None:
    named = replace(case.evaluation, model="<u>model</u>", missing={"<u>rule</u>": "<u>field</u>"})
    text = html_page(replace(contents_of(case), evaluation=named, command='"><u>command</u>'))
    assert "u" not in Page(text).tags
    for word in ("model", "rule", "field", "command"):
        assert f"&lt;u&gt;{word}&lt;/u&gt;" in text


def test_braces_of_a_model_are_not_filled_in(contents: Contents) -> None:
    evaluation = replace(contents.evaluation, model="{{ 7 * 7 }} {% if true %}")
    text = html_page(replace(contents, evaluation=evaluation))
    assert "{{ 7 * 7 }} {% if true %}" in text


def test_the_data_cannot_end_its_script(forms: dict[str, str]) -> None:
    data = Page(forms["html"]).embedded("script application/json")
    assert "<" not in data
    assert json.loads(data)["problems"]


def test_the_first_heading_is_the_answer(contents: Contents, forms: dict[str, str]) -> None:
    result = advice(contents)
    heading = re.search(r'<h1 id="verdict">(.*?)</h1>', forms["html"], re.S)
    assert heading is not None
    text = html.unescape(re.sub(r"<[^>]*>", "", heading.group(1))).replace("\u00a0", " ")
    assert text == result.sentence


def test_what_was_not_replayed_comes_after_the_problems(contents: Contents) -> None:
    evaluation = replace(contents.evaluation, missing={"calm": "a live model, for its layers"})
    text = html_page(replace(contents, evaluation=evaluation))
    assert text.index('id="problem-list"') < text.index("a live model, for its layers") < text.index('id="provenance"')


def test_sections_without_data_are_left_out(contents: Contents) -> None:
    evaluation = replace(contents.evaluation, missing={})
    page = Page(html_page(replace(contents, sizes=(), budget=None, demo={}, evaluation=evaluation)))
    ids = {value for _, name, value in page.attributes if name == "id"}
    links = {value[1:] for tag, name, value in page.attributes if (tag, name) == ("a", "href")}
    assert not {"sizes", "budget", "demo", "missing"} & ids
    assert links <= ids


def test_each_link_of_the_page_has_a_target(forms: dict[str, str]) -> None:
    page = Page(forms["html"])
    ids = [value for _, name, value in page.attributes if name == "id"]
    links = {value[1:] for tag, name, value in page.attributes if (tag, name) == ("a", "href")}
    assert links <= set(ids)
    assert len(ids) == len(set(ids))


def test_heads_of_the_rules_have_a_title_and_cells_a_label(forms: dict[str, str]) -> None:
    page = Page(forms["html"])
    titles = {value for tag, name, value in page.attributes if (tag, name) == ("abbr", "title")}
    labels = {value for tag, name, value in page.attributes if (tag, name) == ("td", "data-label")}
    assert {str(meaning(head)) for head in RULES} <= titles
    assert set(RULES[1:]) <= labels


@pytest.mark.parametrize(
    ("decide", "words"),
    [("first", "the others run all steps"), ("every", "each problem stops at the first step that is left of the line")],
)
def test_the_slider_is_explained_for_the_gate(contents: Contents, decide: str, words: str) -> None:
    settings = replace(contents.settings, decide=decide)  # type: ignore[arg-type]
    assert words in html_page(replace(contents, settings=settings))
