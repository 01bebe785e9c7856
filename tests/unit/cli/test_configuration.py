"""Options of `serve` from a file, the environment and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from justenough.errors import InputError
from tests.unit.cli.invoke import run
from tests.unit.cli.test_serve import URL, complete

FILE = """
upstream = "http://127.0.0.1:1111"
port = 1
audit-share = 0.5
allow_remote = true
playground = false
serves = ["one", "two words"]
thought = "<a> </a>"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "serve.toml"
    path.write_text(FILE)
    return path


def test_a_file_gives_options_of_every_kind(file: Path) -> None:
    options = complete("--config", file)
    assert (options.upstream, options.port, options.audit_share) == ("http://127.0.0.1:1111", 1, 0.5)
    assert (options.allow_remote, options.playground) == (True, False)
    assert (options.serves, options.thought) == (["one", "two words"], "<a> </a>")
    # The others have their defaults.
    assert (options.host, options.allow_origin, options.mode, options.record_no_text) == ("127.0.0.1", [], None, False)


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUSTENOUGH_PORT", "2")
    monkeypatch.setenv("JUSTENOUGH_AUDIT_SHARE", "0.25")
    monkeypatch.setenv("JUSTENOUGH_SERVES", "three four")
    # A value that equals the default is still a value.
    options = complete("--config", file, "--port", 8080)
    assert (options.port, options.audit_share, options.serves) == (8080, 0.25, ["three", "four"])
    assert complete("--config", file, "--serves", "five").serves == ["five"]
    assert complete("--config", file).port == 2


def test_the_environment_alone_is_enough(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUSTENOUGH_UPSTREAM", URL)
    monkeypatch.setenv("JUSTENOUGH_RECORD_NO_TEXT", "Yes")
    monkeypatch.setenv("JUSTENOUGH_ALLOW_REMOTE", "0")
    monkeypatch.setenv("JUSTENOUGH_CALIBRATION", "")
    options = complete()
    assert (options.upstream, options.calibration) == (URL, None)
    assert (options.record_no_text, options.allow_remote) == (True, False)
    monkeypatch.setenv("JUSTENOUGH_CONFIG", str(file))
    assert complete().serves == ["one", "two words"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uptsream = 'x'", "unknown key 'uptsream'"),
        ("upstream-key = 'secret'", "secrets are no options: set JUSTENOUGH_UPSTREAM_KEY or JUSTENOUGH_CASCADE_KEY"),
        ("client-keys = ['secret']", "or name a file by client-key-file"),
        ("port = 'many'", "--port: 'many' is not a whole number"),
        ("port = true", "port is True"),
        ("mode = 'fly'", "--mode: invalid choice: 'fly'"),
        ("allow-remote = 3", "allow_remote is 3"),
        ("[server]\nport = 1", "unknown key 'server'"),
        ("upstream = [{a = 1}]", "upstream is {'a': 1}"),
        ("port = ", "is not TOML"),
        ("\x80", "is not TOML"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_bytes(text.encode("latin-1"))
    result = run("serve", "--config", path)
    assert result.code == 2
    assert result.error.startswith(f"justenough serve: {path}")
    assert message in result.error


@pytest.mark.parametrize("name", ["record", "recalibrated"])
@pytest.mark.parametrize("by_file", [True, False])
def test_a_file_that_was_not_made_for_it_is_not_written_to(
    name: str, by_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, config = tmp_path / "notes", tmp_path / "serve.toml"
    notes.write_text("my notes\nwithout an end")
    config.write_text(f"upstream = '{URL}'\n" + (f"{name} = '{notes}'" if by_file else ""))
    if not by_file:
        monkeypatch.setenv(f"JUSTENOUGH_{name.upper()}", str(notes))
    result = run("serve", "--config", config)
    assert result.code == 2
    assert f"{notes} exists, is not" in result.error
    assert notes.read_text() == "my notes\nwithout an end"


@pytest.mark.parametrize(
    ("content", "is_refused"), [('{"id": "half', False), ("", False), ('{"a": 1}', True), ('{\n "a": 1\n}\n', True)]
)
def test_a_record_of_which_only_half_a_line_was_written_does_not_keep_the_gateway_from_its_start(
    content: str, is_refused: bool, tmp_path: Path
) -> None:
    record, config = tmp_path / "record.jsonl", tmp_path / "serve.toml"
    record.write_text(content)
    config.write_text(f"upstream = '{URL}'\nrecord = '{record}'")
    if is_refused:
        with pytest.raises(InputError, match="is not a file of traces"):
            complete("--config", config)
    else:
        assert complete("--config", config).record == record


def test_no_upstream_anywhere_names_the_three_places() -> None:
    assert run("serve").error.endswith("(give --upstream, JUSTENOUGH_UPSTREAM, or --config FILE)")
    assert "cannot read" in run("serve", "--config", "nowhere.toml").error


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUSTENOUGH_PORT", "tcp://10.0.0.1:80")
    with pytest.raises(InputError, match=r"JUSTENOUGH_PORT: --port: 'tcp:.*' is not a whole number"):
        complete("--upstream", URL)


def test_a_variable_of_no_option_is_a_warning_and_a_key_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUSTENOUGH_PROT", "secret")
    monkeypatch.setenv("JUSTENOUGH_UPSTREAM_KEY", "secret")
    complete("--upstream", URL)
    assert capsys.readouterr().err == "warning: the variable JUSTENOUGH_PROT is no option\n"
