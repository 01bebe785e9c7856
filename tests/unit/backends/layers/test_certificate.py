"""The certified thresholds of exits."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from justenough.backends.layers.certificate import (
    FILE,
    LEVEL,
    Certified,
    Scope,
    certified,
    read_certificates,
    tokenizer_digest,
    write_certificates,
)
from justenough.backends.protocol import Message, Request
from justenough.errors import InputError
from justenough.stats.learn_then_test import Certificate
from tests.conftest import CHECKPOINT

SCOPE = Scope(task="sums", temperature=0.8, steps=1, prompt="{problem}\nOne step.", tokenizer="a", exits="b")
REQUEST = Request(
    messages=(Message("user", "1+1\nOne step."),), max_tokens=9, temperature=0.8, top_k=5, seed=0, key=("1+1", 1)
)
ONE = Certificate(setting=0.9, level=0.1, confidence=0.95, n=600, risk=0.02)


def test_the_checkpoint_of_the_repository_has_a_margin_at_the_default_level() -> None:
    measure, mine = certified(CHECKPOINT / "offramps", None)
    assert measure == "softmax"
    assert 0 < mine.threshold() <= 1
    assert LEVEL in {certificate.level for certificate in mine.certificates}
    assert all(certificate.risk <= certificate.level for certificate in mine.certificates)
    assert mine.scope.tokenizer == tokenizer_digest(CHECKPOINT)


def test_the_file_holds_scope_and_certificates_of_each_measure(tmp_path: Path) -> None:
    other = replace(SCOPE, risk="harm")
    write_certificates(tmp_path, "softmax", [ONE], scope=SCOPE)
    write_certificates(tmp_path, "entropy", [replace(ONE, setting=0.5)], scope=other)
    assert json.loads((tmp_path / FILE).read_text())["softmax"]["scope"] == asdict(SCOPE)
    assert certified(tmp_path, "softmax") == ("softmax", Certified(scope=SCOPE, certificates=(ONE,)))
    assert certified(tmp_path, "entropy")[1].scope == other
    with pytest.raises(InputError, match="one measure alone") as refused:
        certified(tmp_path, None)
    assert "softmax, entropy" in refused.value.hint
    with pytest.raises(InputError, match="no certificate for saturation"):
        certified(tmp_path, "saturation")


def test_a_certificate_of_another_model_is_refused() -> None:
    scope = replace(SCOPE, layers=(2, 4))
    for known in (scope, SCOPE):
        known.check_model(tokenizer="a", exits="b", layers=(2, 4), dtype="float32")
    for what in ("tokenizer", "exits", "dtype"):
        named = {"tokenizer": "a", "exits": "b", "dtype": "float32"} | {what: "other"}
        with pytest.raises(InputError, match=f"another {what}") as refused:
            scope.check_model(**named, layers=(2, 4))
    assert refused.value.hint == "use --dtype float32"
    # The digest of the weights does not cover the layers.
    with pytest.raises(InputError, match="another layers"):
        scope.check_model(tokenizer="a", exits="b", layers=(1, 4), dtype="float32")


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


@pytest.mark.parametrize("content", ["", "[]", '{"softmax": 1}', '{"softmax": {"certificates": [{"setting": 1}]}}'])
def test_a_file_of_another_form_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(InputError, match=r"certificate\.json"):
        read_certificates(tmp_path)


def test_the_only_level_or_the_default_level_is_used(tmp_path: Path) -> None:
    assert Certified(scope=SCOPE, certificates=(ONE,)).threshold() == 0.9
    several = (ONE, replace(ONE, level=LEVEL, setting=0.95))
    assert Certified(scope=SCOPE, certificates=several).threshold() == 0.95
    with pytest.raises(InputError, match=r"nothing is certified at 0\.05"):
        Certified(scope=SCOPE, certificates=(ONE, replace(ONE, level=0.2))).threshold()
    with pytest.raises(InputError, match=r"certificate\.json"):
        certified(tmp_path, "softmax")
