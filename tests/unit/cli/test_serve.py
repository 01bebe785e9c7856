"""`justenough serve`: from arguments to the settings of the gateway; the server itself has tests of its own."""

from __future__ import annotations

import argparse
import builtins
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from justenough.cli.configuration import configured
from justenough.cli.main import build_parser
from justenough.cli.serve import CASCADE_KEY, UPSTREAM_KEY, add_options, leads_to, settings_of
from justenough.errors import InputError
from justenough.rules.live import LiveRule
from justenough.rules.rivals import Deer
from justenough.signal.thought import thought_format
from tests.unit.cli.invoke import run
from tests.unit.gateway.serving import calibration_of

URL = "http://127.0.0.1:8000"


def options(*arguments: object) -> argparse.Namespace:
    return complete("--upstream", URL, *arguments)


def complete(*arguments: object) -> argparse.Namespace:
    given = build_parser("serve").parse_args(["serve", *map(str, arguments)])
    return configured(given, add_options, required="upstream", ignored=(UPSTREAM_KEY, CASCADE_KEY))


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(UPSTREAM_KEY, raising=False)
    monkeypatch.delenv(CASCADE_KEY, raising=False)


def test_without_a_calibration_the_gateway_observes() -> None:
    settings = settings_of(options())
    assert settings.effective_mode == "observe"
    assert settings.calibration is None
    assert settings.upstream_key is None
    assert settings.client_keys == ()
    assert settings.budget is None


def test_a_calibration_makes_it_gate_unless_the_mode_says_less(traces: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    assert run("calibrate", traces, "--out", path).code == 0
    assert settings_of(options("--calibration", path)).effective_mode == "gate"
    assert settings_of(options("--calibration", path, "--mode", "observe")).effective_mode == "observe"


def test_a_rule_gates_without_a_calibration() -> None:
    settings = settings_of(options("--rule", "deer:0.9", "--probe-every", "2-6", "--thought", "harmony"))
    assert settings.rule == LiveRule(Deer(0.9), 6, 2)
    assert settings.effective_mode == "gate"
    assert settings.prompts.thought == thought_format("harmony")
    assert settings.prompts.answer == "Answer:"


def test_units_of_the_limits() -> None:
    settings = settings_of(
        options("--max-body", 2, "--record-mib", 3, "--timeout", 5, "--grace", 1, "--max-concurrent", 7)
    )
    limits = settings.limits
    assert (limits.max_body_bytes, limits.idle_timeout_s, limits.grace_s) == (2 * 1024**2, 5, 1)
    assert (limits.max_concurrent, limits.max_request_tokens) == (7, None)
    assert settings.record_bytes == 3 * 1024**2


def test_the_closing_text_may_have_line_ends() -> None:
    assert settings_of(options("--close", r"</think>\n\nAnswer:")).close == "</think>\n\nAnswer:"


@pytest.mark.parametrize(
    ("values", "tags"),
    [
        (["mistral"], ("[THINK]", "[/THINK]")),
        (["until:Answer:"], ("", "Answer:")),
        (["<a>", "</a>"], ("<a>", "</a>")),
        (["<a> </a>"], ("<a>", "</a>")),
    ],
)
def test_the_format_of_a_thought_is_a_name_a_cue_or_two_tags(values: list[str], tags: tuple[str, str]) -> None:
    settings = settings_of(options("--thought", *values, "--mode", "observe"))
    assert settings.thought is not None
    assert settings.thought.tags == tags
    assert settings.prompts.thought == settings.thought
    assert settings_of(options()).thought is None


def test_two_tags_before_the_problem() -> None:
    for values in (["<a>", "</a>"], ["think"]):
        parsed = build_parser("solve").parse_args(["solve", "--thought", *values, "6*7"])
        assert (parsed.thought, parsed.problem) == (" ".join(values), "6*7")


def test_an_unknown_format_of_a_thought_is_one_line_and_exit_2() -> None:
    result = run("serve", "--upstream", URL, "--thought", "thnik")
    assert result.code == 2
    assert "OPEN CLOSE" in result.err


def test_keys_come_from_variables_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(UPSTREAM_KEY, "up")
    monkeypatch.setenv(CASCADE_KEY, "second")
    keys = tmp_path / "keys"
    keys.write_text("one\n\n  two  \n")
    cascade = ("--extend", "cascade", "--cascade-upstream", "http://127.0.0.1:9000", "--cascade-model", "large")
    settings = settings_of(options("--client-key-file", keys, *cascade))
    assert settings.upstream_key == "up"
    assert settings.client_keys == ("one", "two")
    assert settings.cascade is not None
    assert (settings.cascade.model, settings.cascade.key) == ("large", "second")


def test_budgets_have_a_period_a_scope_and_a_file(tmp_path: Path) -> None:
    budget = settings_of(
        options("--budget-tokens", 900, "--budget-per", "batch", "--budget-scope", "all", "--ledger", tmp_path / "l.db")
    ).budget
    assert budget is not None
    assert (budget.tokens, budget.per, budget.scope, budget.file) == (900, "batch", "all", tmp_path / "l.db")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ledger", "l.db"], "--ledger needs a budget"),
        (["--cascade-upstream", "http://127.0.0.1:9000"], "a cascade needs a server and a model"),
        (["--cascade-model", "large"], "a cascade needs a server and a model"),
        (["--client-key-file", "{folder}/none"], "cannot read the keys"),
        (["--client-key-file", "{folder}/empty"], "has no key"),
        (["--calibration", "{folder}/none.json"], "cannot read"),
        (["--rule", "oracle"], "oracle cannot stop a live run"),
        (["--rule", "deer", "--extend", "wait"], "one long thought"),
        (["--rule", "deer", "--calibration", "{folder}/one.json"], "give --rule or --calibration"),
        (["--recalibrated", "{folder}/new.json"], "recalibration needs a calibration"),
        (["--apply-recalibration"], "recalibration needs a calibration"),
        (["--timeout", "0"], "--timeout is 0.0"),
        (["--timeout", "nan"], "--timeout is nan"),
        (["--timeout", "inf"], "--timeout is inf"),
        (["--grace", "-1"], "--grace is -1.0"),
        (["--max-body", "-1"], "--max-body"),
        (["--max-concurrent", "0"], "--max-concurrent is 0"),
        (["--max-request-tokens", "0"], "--max-request-tokens is 0"),
        (["--answer-tokens", "0"], "--answer-tokens is 0"),
        (["--record-mib", "0"], "--record-mib"),
        (["--budget-tokens", "15"], "every request would be refused"),
        (["--probe-every", "4"], "--probe-every is for a rule"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n \n")
    calibration_of(1.0).save(tmp_path / "one.json")
    with pytest.raises(InputError, match=message):
        settings_of(options(*(argument.format(folder=tmp_path) for argument in arguments)))


def test_a_bad_upstream_is_one_line_and_exit_2() -> None:
    result = run("serve", "--upstream", "not a url")
    assert result.code == 2
    assert result.error.startswith("justenough serve: ")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "0.0.0.0", "[::ffff:127.0.0.1]"])
def test_the_gateway_is_no_upstream_of_its_own(host: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = run("serve", "--upstream", f"http://{host}:{port}/v1", "--port", port)
    assert result.code == 2
    assert "is the address of this gateway itself" in result.error


@pytest.mark.parametrize(("host", "same"), [("127.0.0.2", True), ("localhost", True), ("192.0.2.1", False)])
def test_a_gateway_on_all_addresses_knows_those_of_this_machine(host: str, same: bool) -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        port = listener.getsockname()[1]
        assert leads_to(f"http://{host}:{port}", listener) == same
        assert not leads_to(f"http://{host}:{port - 1}", listener)


def test_a_host_that_others_reach_needs_permission() -> None:
    result = run("serve", "--upstream", URL, "--host", "0.0.0.0", "--port", 0)
    assert result.code == 2
    assert "--allow-remote" in result.error


def test_the_extra_is_named_if_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: tuple[str, ...] = (),
        level: int = 0,
    ) -> object:
        if name == "justenough.gateway.app.server":
            raise ImportError("no module", name="starlette")
        return real(name, globals, locals, fromlist, level)

    monkeypatch.setattr(builtins, "__import__", without)
    result = run("serve", "--upstream", URL)
    assert result.code == 2
    assert result.error.endswith("starlette is not installed (pip install 'justenough[gateway]')")


def warnings(*arguments: object) -> str:
    """What `serve` warns of before it finds out that it may not listen there."""
    return run("serve", "--upstream", URL, "--host", "0.0.0.0", *arguments).err


def test_a_gate_that_can_only_add_tokens_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    calibration_of(0.1, shape="sequential", splitter="completion").save(path)
    assert "so it can only add tokens" in warnings("--calibration", path)
    assert "warning" not in warnings("--calibration", path, "--extend", "refine")
    assert "warning" not in warnings("--calibration", path, "--mode", "observe")
    calibration_of(0.1).save(path)
    assert "warning" not in warnings("--calibration", path)
    calibration_of(None).save(path)
    assert "this gate never stops: it has no threshold" in warnings("--calibration", path)


def test_an_option_that_does_nothing_beside_the_others_is_a_warning(tmp_path: Path) -> None:
    record, path = ("--record", tmp_path / "r.jsonl"), tmp_path / "c.json"
    assert "warning" not in warnings(*record)
    assert "nothing is recorded: --audit-share is 0" in warnings(*record, "--audit-share", 0)
    assert "nothing is recorded: --rule has no audit" in warnings(*record, "--rule", "deer")
    calibration_of(0.1).save(path)
    new = ("--calibration", path, "--recalibrated", tmp_path / "new.json")
    assert "warning" not in warnings(*new)
    assert "nothing is recalibrated: --audit-share is 0" in warnings(*new, "--audit-share", 0)
    certified = replace(calibration_of(0.1), guarantee="certified", max_harm=0.05, confidence=0.95, decide="every")
    certified.save(path)
    assert "nothing is recalibrated: the calibration's certificate is for every step" in warnings(*new)
