import json
import re

import msgspec
import pytest

from justenough.errors import BackendRejected
from justenough.trace import Json
from justenough.wire.values import read_as, read_json, read_or_none, repaired


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a": [1, 2.5, null, true]}', {"a": [1, 2.5, None, True]}),
        (b"[-Infinity]", [-9999.0]),
        (b"[NaN, Infinity]", ["NaN", "Infinity"]),
        (b'"NaN and -Infinity"', "NaN and -Infinity"),
        (b"[1e999, -1E+400, 1e-999, 1.5e308]", ["1e999", "-1E+400", 0.0, 1.5e308]),
        (b"[" + b"9" * 5000 + b"]", ["9" * 5000]),
        (b'["\\"NaN", NaN]', ['"NaN', "NaN"]),
        (rb'"\ud83d\ude00"', "😀"),
        (rb'"\ud83d"', "\ufffd"),
        (rb'"a\uDE00b"', "a\ufffdb"),
        (rb'"\\ud83d"', r"\ud83d"),
        (rb'"\ud83d\ud83d\ude00"', "\ufffd😀"),
    ],
)
def test_json_beyond_json_is_repaired(data: bytes, value: Json) -> None:
    assert read_json(data) == value
    assert read_json(data.decode()) == value
    assert read_json(msgspec.Raw(data)) == value


@pytest.mark.parametrize("data", [b'{"a":1}', '"ü NaN"'.encode(), b"[]"])
def test_valid_json_is_not_changed(data: bytes) -> None:
    assert json.loads(repaired(data)) == json.loads(data)


@pytest.mark.parametrize("data", ["", "{", "nan", "[NaN", '"NaN', '{"a": -NaN}', "[" * 100_000, b"\xff", b'"\\ud800'])
def test_what_is_not_json_is_refused(data: str | bytes) -> None:
    with pytest.raises(BackendRejected, match="is not JSON") as refusal:
        read_json(data)
    assert refusal.value.status == 502
    assert len(str(refusal.value)) < 300


def test_a_text_of_many_quotation_marks_is_repaired_in_linear_time() -> None:
    assert repaired(b'NaN "' + b'\\"' * 500_000) == b'"NaN" "' + b'\\"' * 500_000


def test_a_value_of_another_type_is_refused_with_its_place() -> None:
    with pytest.raises(
        BackendRejected, match=re.escape("logprobs does not fit: Expected `int`, got `str` - at `$[1]`")
    ):
        read_as(b'[1, "a"]', list[int], name="logprobs")
    assert read_or_none(b'[1, "a"]', list[int]) is None
    assert read_or_none(b"[1, NaN]", list[int]) is None
    assert read_or_none(b"[1, 2]", list[int]) == [1, 2]
