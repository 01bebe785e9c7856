"""The public surface: sorted, complete, cheap to import; and layers, versions and documents that agree."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import justenough

ROOT = Path(__file__).parent.parent.parent


def test_all_is_sorted_and_every_name_is_there() -> None:
    assert list(justenough.__all__) == sorted(justenough.__all__)
    for name in justenough.__all__:
        assert getattr(justenough, name).__module__.startswith("justenough."), name
    assert set(justenough.__all__) <= set(dir(justenough))


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(justenough, "magic")


def test_import_and_help_are_light() -> None:
    """Heavy libraries load only when used; the times themselves are in benchmarks, not here."""
    code = (
        "import sys, justenough; from justenough.cli.main import build_parser; build_parser('');"
        " print(' '.join(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    for heavy in ("numpy", "scipy", "pyarrow", "onnxruntime", "httpx", "torch", "transformers"):
        assert heavy not in loaded, heavy


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == justenough.__version__


def test_the_reference_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_link_in_the_documents_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
