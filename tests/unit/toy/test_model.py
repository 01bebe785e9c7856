"""The embedded models: names, files, and what a batched decoder needs of them."""

from __future__ import annotations

import pytest

from justenough.backends.batched import BatchedModel
from justenough.backends.protocol import Message
from justenough.errors import InputError, ProblemRefused
from justenough.toy.model import EmbeddedModel
from justenough.toy.notation import MODELS
from justenough.toy.tokens import packaged


@pytest.mark.parametrize("name", MODELS)
def test_each_model_has_a_decoder_and_a_tokenizer_of_one_vocabulary(name: str) -> None:
    model: BatchedModel = EmbeddedModel(name)
    assert model.name == f"justenough-{name}"
    decoder, tokenizer = model.decoder(rows=2, threads=1), model.tokenizer()
    assert decoder.vocabulary == len(tokenizer.bytes)
    assert 0 <= tokenizer.end < decoder.vocabulary
    assert decoder.positions == 640
    assert decoder.busy == 0


def test_it_reads_its_own_notation_only() -> None:
    model = EmbeddedModel("embedded")
    assert model.read("47 × 36") == "47*36"
    with pytest.raises(ProblemRefused):
        model.read("hello")


@pytest.mark.parametrize("name", ["", "gigantic", "Embedded", "../embedded"])
def test_an_unknown_name_lists_the_models(name: str) -> None:
    with pytest.raises(InputError, match="use one of embedded, overconfident, repaired"):
        EmbeddedModel(name)


def test_a_missing_file_is_an_error_with_a_hint() -> None:
    with pytest.raises(InputError, match=r"nothing\.onnx is not installed \(reinstall justenough"):
        packaged("nothing.onnx")


def test_the_tokenizer_ends_a_prompt_where_the_model_begins() -> None:
    tokenizer = EmbeddedModel("embedded").tokenizer()
    ids = tokenizer.conversation((Message("user", "47*36"),), continue_final=False)
    text = b"".join(tokenizer.bytes[each] for each in ids).decode()
    assert text == "<|user|>47*36<|end|><|assistant|>"
