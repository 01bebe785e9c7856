"""The embedded models under AdaDec: the learned thresholds and the SPEC."""

from __future__ import annotations

import math

import pytest

from justenough.backends.adadec import AdaDecBackend
from justenough.backends.registry import Options, open_backend
from justenough.errors import InputError
from justenough.toy.adadec import embedded_adadec, learned_file, learned_threshold, open_adadec
from justenough.toy.notation import MODELS
from justenough.toy.tokens import packaged


@pytest.mark.parametrize("name", MODELS)
def test_each_model_has_a_learned_threshold_in_bits(name: str) -> None:
    # The vocabulary has fewer than 256 ids, so that no entropy reaches 8 bits.
    assert 0 < learned_threshold(name) < 8
    assert packaged(learned_file(name)).is_file()
    assert embedded_adadec(name).threshold == learned_threshold(name)


def test_the_spec_names_the_model_and_the_threshold() -> None:
    backend = open_backend("adadec")
    assert isinstance(backend, AdaDecBackend)
    assert backend.model == f"justenough-embedded/adadec@{learned_threshold('embedded')!r}"
    assert open_adadec("@2", Options()).model == "justenough-embedded/adadec@2.0"
    assert open_adadec("repaired@0.25", Options()).model == "justenough-repaired/adadec@0.25"
    assert open_adadec("embedded@inf", Options()).threshold == math.inf


def test_the_options_set_the_number_of_streams() -> None:
    assert open_adadec("", Options()).concurrency == 8
    assert open_adadec("", Options(concurrency=3)).rows == 3 * 4


def test_it_reads_problems_in_the_notation_of_the_model() -> None:
    backend = embedded_adadec()
    assert backend.prompts.name == "embedded"
    assert backend.read("7 x 12") == "7*12"


@pytest.mark.parametrize("spec", ["embedded@much", "embedded@-1", "embedded@nan", "gigantic", "gigantic@0.5"])
def test_a_wrong_model_or_threshold_is_refused(spec: str) -> None:
    with pytest.raises(InputError):
        open_adadec(spec, Options())
