"""What a request may ask of the gate inside vLLM, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from justenough.calibration.calibration import Calibration
from justenough.errors import InputError, SignalMismatch
from justenough.gate import GateSettings
from justenough.integrations.engine.request import GATE, ID, KEY, VARIABLE, admit, check_server, order_of
from justenough.signal.signal import Signal
from tests.unit.gateway.serving import calibration_of

CALIBRATION = calibration_of(0.5)


class Params:
    def __init__(self, args: dict[str, object] | None, **others: object) -> None:
        self.extra_args = args
        self.n = 1
        self.temperature = 0.0
        vars(self).update(others)


def of(calibration: Calibration, **others: object) -> Params:
    return Params({GATE: calibration.dumps()}, **others)


def test_a_request_that_asks_for_nothing_is_left_alone() -> None:
    nothing: list[dict[str, object] | None] = [None, {}, {"other": 1}, {GATE: 0}, {KEY: "mine"}]
    nothing += [{GATE: off, KEY: "mine"} for off in ("0", False, 0.0, None)]
    for args in nothing:
        params = Params(args, n=2, min_tokens=5)
        admit(params)
        assert params.extra_args is args
        assert order_of(params) is None


def test_each_request_gets_a_key_of_its_own_though_the_arguments_are_shared() -> None:
    args: dict[str, object] = {GATE: CALIBRATION.dumps(), KEY: "forged"}
    one, other = Params(args), Params(args)
    admit(one)
    admit(other)
    assert args[KEY] == "forged"
    first, second = order_of(one), order_of(other)
    assert first is not None
    assert second is not None
    assert len({first.key, second.key, "forged"}) == 3
    assert (first.id, second.id) == (first.key, second.key)
    assert first.calibration == CALIBRATION


def test_the_gate_has_the_calibrations_settings_and_any_number_of_steps() -> None:
    params = of(CALIBRATION)
    admit(params)
    order = order_of(params)
    assert order is not None
    assert order.settings == replace(GateSettings.of(CALIBRATION), max_steps=order.settings.max_steps)
    assert order.settings.max_steps > 1_000_000


def test_the_server_has_one_calibration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    CALIBRATION.save(file)
    monkeypatch.setenv(VARIABLE, str(file))
    check_server()
    for asked in (1, True, 1.0, "1"):
        params = Params({GATE: asked, ID: "mine"})
        admit(params)
        order = order_of(params)
        assert order is not None
        assert (order.id, order.calibration) == ("mine", CALIBRATION)
    with pytest.raises(InputError, match="if JUSTENOUGH_CALIBRATION is a folder"):
        admit(Params({GATE: "other.json"}))


def test_the_server_has_a_folder_of_calibrations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    CALIBRATION.save(tmp_path / "outside.json")
    CALIBRATION.save(tmp_path / "folder" / "one.json")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "folder"))
    check_server()
    params = Params({GATE: "one.json"})
    admit(params)
    assert order_of(params) is not None
    for asked in ("../outside.json", str(tmp_path / "outside.json"), ".", "..", "a\0b", "\ud800", "x" * 5000):
        with pytest.raises(InputError):
            admit(Params({GATE: asked}))
    with pytest.raises(InputError, match=r"no calibration two\.json"):
        admit(Params({GATE: "two.json"}))
    with pytest.raises(InputError, match="several calibrations"):
        admit(Params({GATE: 1}))


def test_a_calibration_that_changed_on_disk_is_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    file = tmp_path / "one.json"
    monkeypatch.setenv(VARIABLE, str(file))
    thresholds = []
    for number, threshold in enumerate((0.5, 0.25)):
        calibration_of(threshold).save(file)
        os.utime(file, ns=(number, number))
        params = Params({GATE: 1})
        admit(params)
        order = order_of(params)
        assert order is not None
        thresholds.append(order.calibration.threshold)
    assert thresholds == [0.5, 0.25]


def test_a_server_without_a_calibration_reads_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    check_server()
    for asked in (1, "/etc/hostname"):
        with pytest.raises(InputError, match="the server has no calibration"):
            admit(Params({GATE: asked}))


SIGNAL = CALIBRATION.signal
MISMATCHES: dict[str, tuple[Params, str]] = {
    "processed": (of(replace(CALIBRATION, signal=replace(SIGNAL, logits="processed"))), "logits 'processed'"),
    "stand-in": (of(replace(CALIBRATION, signal=Signal(kind="probe", top_k=None))), "kind 'probe'"),
    "surprisal": (of(replace(CALIBRATION, signal=replace(SIGNAL, pooling="surprisal"))), "pooling 'surprisal'"),
    "sequential": (of(replace(CALIBRATION, shape="sequential")), "sequential steps"),
    "temperature": (of(calibration_of(0.5, temperature=0.6), temperature=0.7), "0.7, the calibration's 0.6"),
    "penalty": (of(CALIBRATION, repetition_penalty=1.05), "repetition_penalty is 1.05"),
    "bias": (of(CALIBRATION, logit_bias={3: 1.0}), "logit_bias is"),
    "minimum": (of(CALIBRATION, min_tokens=3), "min_tokens is 3"),
    "no temperature": (of(calibration_of(0.5, temperature=0.6), temperature=float("nan")), "temperature is nan"),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_another_signal_than_the_calibrations_is_refused(name: str) -> None:
    params, words = MISMATCHES[name]
    before = params.extra_args
    with pytest.raises(SignalMismatch, match=words):
        admit(params)
    assert params.extra_args is before


def test_what_changes_nothing_is_accepted() -> None:
    plain: dict[str, Any] = {"repetition_penalty": 1.0, "logit_bias": {}, "bad_words": [], "allowed_token_ids": None}
    admit(of(CALIBRATION, **plain))
    admit(of(calibration_of(0.5, temperature=0.6), temperature=0.6000000001))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (of(CALIBRATION, n=2), "n is 2"),
        (Params({GATE: "{"}), "not JSON"),
        (Params({GATE: "{}"}), "no calibration"),
        (Params({GATE: "[" * 100_000 + "{"}), "the server has no calibration"),
        (Params({GATE: "{" + " " * 5_000_000}), "5000001 characters"),
        (Params({GATE: CALIBRATION.dumps(), ID: "a/b"}), "justenough_id is 'a/b'"),
        (Params({GATE: CALIBRATION.dumps(), ID: 7}), "justenough_id is 7"),
        (Params({GATE: CALIBRATION.dumps(), ID: "a" * 1000}), "^justenough_id is 'a{70,80}…"),
        (Params({GATE: CALIBRATION.dumps(), "justenough_idd": "x"}), "unknown: justenough_idd"),
        (Params({GATE: "x" * 1_000_000}), "^justenough is 'x{70,80}…, but"),
        (Params({GATE: ""}), "justenough is ''"),
        (Params({GATE: []}), r"justenough is \[\]"),
        (Params({GATE: float("nan")}), "justenough is nan"),
    ],
)
def test_bad_input_gets_one_clear_error(monkeypatch: pytest.MonkeyPatch, params: Params, words: str) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(InputError, match=words):
        admit(params)
