"""The measured sizes: what is counted, and that the documented command exists."""

from __future__ import annotations

from pathlib import Path

from benchmarks.sizes import EXTRAS, ROOT, Size, measure, site_packages, table


def packages(folder: Path) -> Path:
    """An environment with two packages of 1.5 million bytes in all."""
    site = folder / "lib" / "python3.11" / "site-packages"
    for name, size in (("one", 1_000_000), ("two", 500_000)):
        (site / name / "inner").mkdir(parents=True)
        (site / name / "inner" / "data.bin").write_bytes(bytes(size))
        (site / f"{name}-1.0.dist-info").mkdir()
    return site


def test_all_files_below_site_packages_are_counted(tmp_path: Path) -> None:
    site = packages(tmp_path)
    assert site_packages(tmp_path) == site
    assert measure(site, requirement="justenough") == Size("justenough", 1.5, 2)


def test_the_table_is_markdown() -> None:
    lines = table([Size("justenough", 405.4, 14), Size("justenough[gateway]", 436.0, 27)]).splitlines()
    assert lines[2] == "| `pip install 'justenough'` | 405 | 14 |"
    assert lines[3] == "| `pip install 'justenough[gateway]'` | 436 | 27 |"


def test_the_documents_give_a_size_for_each_extra() -> None:
    page = (ROOT / "docs" / "how-to" / "install.md").read_text(encoding="utf-8")
    assert "python -m benchmarks.sizes" in page
    for extra in EXTRAS:
        requirement = f"justenough[{extra}]" if extra else "justenough"
        assert f"| `pip install '{requirement}'` |" in page
