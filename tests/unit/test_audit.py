"""The audit of the lock file reads pip-audit's report."""

from __future__ import annotations

import json

import pytest

from tests.audit import findings


def test_each_known_vulnerability_is_one_line() -> None:
    report = {
        "dependencies": [
            {"name": "good", "version": "1.0", "vulns": []},
            {"name": "skipped", "skip_reason": "not on the index"},
            {
                "name": "bad",
                "version": "1.2",
                "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.3", "2.0"]}, {"id": "PYSEC-2", "fix_versions": []}],
            },
        ]
    }
    assert findings(json.dumps(report)) == [
        "bad 1.2: PYSEC-1, mended in 1.3, 2.0",
        "bad 1.2: PYSEC-2, mended in none",
    ]


def test_another_text_is_no_report() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        findings("connection refused")
