"""The certified margins of a checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from justenough.backends.layers.certificate import (
    LEVEL,
    Scope,
    certified_margin,
    read_certificates,
    read_scope,
    tokenizer_digest,
    write_certificates,
)
from justenough.backends.protocol import Message, Request
from justenough.errors import InputError
from justenough.stats.learn_then_test import Certificate
from tests.conftest import CHECKPOINT

SCOPE = Scope(task="sums", temperature=0.8, steps=1, prompt="{problem}\nOne step.", tokenizer="another")
REQUEST = Request(
    messages=(Message("user", "1+1\nOne step."),), max_tokens=9, temperature=0.8, top_k=5, seed=0, key=("1+1", 1)
)


def test_the_checkpoint_of_the_repository_has_a_margin_at_the_default_level() -> None:
    assert 0 < certified_margin(CHECKPOINT) <= 1
    assert LEVEL in {certificate.level for certificate in read_certificates(CHECKPOINT)}
    assert all(certificate.risk <= certificate.level for certificate in read_certificates(CHECKPOINT))


def test_the_file_holds_the_scope_of_the_certificates(tmp_path: Path) -> None:
    certificates = [Certificate(setting=0.9, level=level, confidence=0.95, n=600, risk=0.0) for level in (0.05, 0.1)]
    (tmp_path / "tokenizer.json").write_text("{}")
    scope = replace(SCOPE, tokenizer=tokenizer_digest(tmp_path))
    write_certificates(tmp_path, certificates, scope=scope)
    assert json.loads((tmp_path / "calm.json").read_text())["scope"] == asdict(scope)
    assert read_certificates(tmp_path) == tuple(certificates)
    assert read_scope(tmp_path) == scope


def test_a_certificate_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    write_certificates(tmp_path, [], scope=SCOPE)
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        read_scope(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="another tokenizer"):
        read_scope(tmp_path)


@pytest.mark.parametrize(
    ("request_", "match"),
    [
        (replace(REQUEST, temperature=0.6), "temperature 0.8, not 0.6"),
        (replace(REQUEST, key=("1+1", 2)), "steps up to 1, not step 2"),
        (replace(REQUEST, messages=(Message("user", "1+1"),)), "the request"),
        (replace(REQUEST, continue_final=True), "the request"),
    ],
)
def test_a_request_outside_the_scope_is_refused(request_: Request, match: str) -> None:
    SCOPE.check(REQUEST)
    with pytest.raises(InputError, match=match) as refused:
        SCOPE.check(request_)
    assert "--steps 1 --temperature 0.8" in refused.value.hint


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"certificates": 1}', '{"certificates": [{"setting": 1}]}'])
def test_a_file_of_another_form_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "calm.json").write_text(content)
    with pytest.raises(InputError, match=r"calm\.json"):
        read_certificates(tmp_path)


def test_a_missing_level_or_file_is_named(tmp_path: Path) -> None:
    certificate = Certificate(setting=0.9, level=0.05, confidence=0.95, n=600, risk=0.02)
    write_certificates(tmp_path, [certificate], scope=SCOPE)
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
