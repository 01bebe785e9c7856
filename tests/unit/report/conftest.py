"""One evaluation and its report in each form, for all tests of the report."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from justenough.report.data import Contents
from tests.reports import DEMO, Case, calibrated, contents_of, few_draws, written


@pytest.fixture(scope="package", autouse=True)
def quick() -> Iterator[None]:
    with few_draws():
        yield


@pytest.fixture(scope="package")
def case(quick: None) -> Case:
    return calibrated(90)


@pytest.fixture(scope="package")
def contents(case: Case) -> Contents:
    return contents_of(case, demo=DEMO)


@pytest.fixture(scope="package")
def forms(case: Case, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("report")
    return {form: written(case, folder / f"r.{form}", demo=DEMO) for form in ("html", "md", "txt", "json")}
