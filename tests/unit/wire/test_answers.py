import json

import pytest

from justenough.errors import BackendRejected
from justenough.trace import Json
from justenough.wire.answers import Model, read_models


def test_models_are_read_row_by_row() -> None:
    rows: list[Json] = [
        {"id": "a", "owned_by": "vllm", "max_model_len": 4096},
        {"id": "b", "owned_by": 3, "max_model_len": "much"},
        {"id": 7},
        {"owned_by": "vllm"},
        "c",
    ]
    assert read_models(json.dumps({"data": rows}).encode()) == (Model("a", "vllm", 4096), Model("b"))


@pytest.mark.parametrize("value", [{}, {"data": None}, {"data": {}}, [], None])
def test_an_answer_without_a_list_has_no_models(value: Json) -> None:
    assert read_models(json.dumps(value).encode()) == ()


def test_what_is_not_json_lists_no_models() -> None:
    with pytest.raises(BackendRejected, match="is not JSON"):
        read_models(b"<html>")
