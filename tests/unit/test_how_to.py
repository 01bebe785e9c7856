"""The pages of docs/how-to: their commands are valid, their links lead somewhere, and their tests run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from justenough.cli.main import COMMANDS, build_parser

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "how-to"
PAGES = sorted(FOLDER.glob("*.md"))


def blocks(page: Path, language: str) -> list[str]:
    text = re.sub(r"^   (?=\S|   )", "", page.read_text(), flags=re.MULTILINE)
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """The arguments of each `justenough COMMAND …` in the page's blocks."""
    lines = "".join(blocks(page, "")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("justenough ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_command_is_valid(page: Path) -> None:
    for arguments in commands(page):
        assert arguments[0] in COMMANDS
        assert build_parser(arguments[0]).parse_args(arguments).command == arguments[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_link_leads_to_a_file(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_of_the_mock_upstream_run(number: int) -> None:
    exec(compile(blocks(FOLDER / "mock-upstream.md", "python")[number], "example", "exec"), {})


def test_every_page_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in PAGES if f"(docs/how-to/{page.name})" not in readme] == []
