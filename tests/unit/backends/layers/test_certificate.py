"""The certified margins of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from justenough.backends.layers.certificate import LEVEL, certified_margin, read_certificates, write_certificates
from justenough.errors import InputError
from justenough.stats.learn_then_test import Certificate
from tests.conftest import CHECKPOINT


def test_the_checkpoint_of_the_repository_has_a_margin_at_the_default_level() -> None:
    assert 0 < certified_margin(CHECKPOINT) <= 1
    assert LEVEL in {certificate.level for certificate in read_certificates(CHECKPOINT)}
    assert all(certificate.risk <= certificate.level for certificate in read_certificates(CHECKPOINT))


def test_the_file_says_what_the_certificates_are_valid_for(tmp_path: Path) -> None:
    certificates = [Certificate(setting=0.9, level=level, confidence=0.95, n=600, risk=0.0) for level in (0.05, 0.1)]
    write_certificates(tmp_path, certificates, about="arithmetic at temperature 0")
    assert json.loads((tmp_path / "calm.json").read_text())["about"] == "arithmetic at temperature 0"
    assert read_certificates(tmp_path) == tuple(certificates)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"certificates": 1}', '{"certificates": [{"setting": 1}]}'])
def test_a_file_of_another_form_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "calm.json").write_text(content)
    with pytest.raises(InputError, match=r"calm\.json"):
        read_certificates(tmp_path)


def test_a_missing_level_or_file_is_named(tmp_path: Path) -> None:
    certificate = Certificate(setting=0.9, level=0.05, confidence=0.95, n=600, risk=0.02)
    write_certificates(tmp_path, [certificate], about="a test")
    assert read_certificates(tmp_path) == (certificate,)
    assert certified_margin(tmp_path) == 0.9
    with pytest.raises(InputError, match=r"0\.05"):
        certified_margin(tmp_path, level=0.01)
    (tmp_path / "calm.json").write_text(json.dumps({"certificates": [{"margin": 1}]}))
    with pytest.raises(InputError, match="setting is missing"):
        read_certificates(tmp_path)
    (tmp_path / "calm.json").unlink()
    with pytest.raises(InputError, match=r"training\.calm"):
        read_certificates(tmp_path)
