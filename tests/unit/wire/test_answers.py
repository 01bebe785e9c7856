import json

import pytest

from justenough.errors import BackendRejected
from justenough.trace import Json
from justenough.wire import Model, Prompt, Props, Tokens, Version, read_models, read_or_none


def test_models_are_read_row_by_row() -> None:
    rows: list[Json] = [
        {"id": "a", "owned_by": "vllm", "max_model_len": 4096},
        {"id": "b", "owned_by": 3},
        {"id": 7},
        {"owned_by": "vllm"},
        "c",
    ]
    assert read_models(json.dumps({"data": rows}).encode()) == (Model("a", "vllm"), Model("b"))


@pytest.mark.parametrize("value", [{}, {"data": None}, {"data": {}}, [], None])
def test_an_answer_without_a_list_has_no_models(value: Json) -> None:
    assert read_models(json.dumps(value).encode()) == ()


def test_what_is_not_json_lists_no_models() -> None:
    with pytest.raises(BackendRejected, match="is not JSON"):
        read_models(b"<html>")


def test_the_answers_of_a_probe() -> None:
    props = read_or_none(b'{"default_generation_settings": {"params": {"temperature": 0.8}}, "n_ctx": 1}', Props)
    assert props is not None
    assert props.default_generation_settings.params.temperature == 0.8
    bare = read_or_none(b'{"default_generation_settings": {}}', Props)
    assert bare is not None
    assert bare.default_generation_settings.params.temperature is None
    assert read_or_none(b'{"error": "no such path"}', Props) is None
    assert read_or_none(b'{"version": "0.9"}', Version) == Version("0.9")
    assert read_or_none(b'{"prompt": "x"}', Prompt) == Prompt("x")
    assert read_or_none(b'{"tokens": [1, 2]}', Tokens) == Tokens([1, 2])
