"""`justenough exits`: from texts to a run with a certificate."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from justenough.backends.layers import leaving
from justenough.backends.layers.training import new_exits
from justenough.backends.transformers import Checkpoint
from justenough.trace.files import read_traces
from tests.unit.backends.layers.small import foreign
from tests.unit.cli.invoke import run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    # A command that is suggested must quote the space.
    folder = tmp_path / "a model"
    folder.mkdir()
    foreign(folder)
    rows = [json.dumps({"problem": f"w{number} w2", "target": "never"}) for number in range(6)]
    (folder / "tasks.jsonl").write_text("\n".join(rows))
    return folder


def test_train_certify_and_collect(model: Path) -> None:
    texts = ("--texts", model / "texts.jsonl", "--every", 2, "--shared-head")
    trained = run("exits", "train", "--model", model, *texts, "--tokens", 500, "--batch-tokens", 120, "--json")
    assert trained.code == 0, trained.err
    assert trained.json["layers"] == [2, 4]
    assert (model / "offramps" / "exits.json").is_file()
    certify = ("exits", "certify", "--model", model, "--tasks", model / "tasks.jsonl", "--max-tokens", 6)
    refused = run(*certify)
    assert refused.code == 1
    assert "59 are needed" in refused.error
    done = run(*certify, "--max-harm", 0.5, "--measure", "classifier")
    assert done.code == 0, done.err
    assert "certified: classifier@0.1" in done.out
    assert "nothing could be harmed" in done.err
    collect = ("collect", "--model", f"hf:{model}", "--exits", model / "offramps", "--tasks", model / "tasks.jsonl")
    settings = ("--shape", "sequential", "--steps", 1, "--max-tokens", 6, "--out", model / "out.jsonl")
    wrong = run(*collect, *settings, "--temperature", 0.9)
    assert wrong.code == 2
    assert "certified only for temperature 0.6, not 0.9" in wrong.err
    (model / "out.jsonl.part.jsonl").unlink(missing_ok=True)
    # What `certify` names as the next command runs inside the scope.
    _, _, named = done.out.strip().rpartition("next: justenough ")
    told = shlex.split(named.removesuffix("--tasks FILE --out FILE"))
    assert run(*told, "--tasks", model / "tasks.jsonl", "--out", model / "told.jsonl").code == 0
    longer = run(*collect, *settings[:-4], "--max-tokens", 7, *settings[-2:])
    assert (longer.code, "certified only for steps of at most 6 tokens, not 7" in longer.err) == (2, True)
    (model / "out.jsonl.part.jsonl").unlink(missing_ok=True)
    streamed = run(*collect, *settings, "--shape", "streaming")
    assert (streamed.code, "certified only for sequential steps" in streamed.err) == (2, True)
    result = run(*collect, *settings)
    assert result.code == 0, result.err
    traces = read_traces(model / "out.jsonl").traces
    assert {trace.model for trace in traces} == {f"{model.name}/classifier@0.1"}
    assert any("layers" in trace.steps[0].extra for trace in traces)


def test_nothing_is_written_if_no_threshold_passes(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(leaving.GRIDS, "softmax", (0.0,))
    texts = ("--texts", model / "texts.jsonl", "--every", 1, "--tokens", 120, "--batch-tokens", 120)
    assert run("exits", "train", "--model", model, *texts).code == 0
    tasks = ("--tasks", model / "tasks.jsonl", "--max-tokens", 6, "--max-harm", 0.5, "--grader", "operator:eq")
    result = run("exits", "certify", "--model", model, *tasks, "--risk", "answers", "--json")
    assert result.code == 1, result.err
    assert result.json["certificate"] is None
    assert result.json["tried"][0]["differ"] > 0
    assert not (model / "offramps" / "certificate.json").exists()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("train", "--texts", "nowhere.jsonl"), "nowhere.jsonl cannot be read"),
        (("train", "--texts", "texts.jsonl", "--every", 9), "no exit fits"),
        (("train", "--texts", "texts.jsonl", "--tokens", 0), "must be above 0"),
        (("train", "--texts", "texts.jsonl", "--dtype", "int8"), "the dtype is 'int8'"),
        (("train", "--texts", "texts.jsonl", "--dtype", "float8_e4m3fn"), "the dtype is 'float8_e4m3fn'"),
        (("train", "--texts", "texts.jsonl", "--threads", 0), "0 threads"),
        (("train", "--texts", "texts.jsonl", "--rate", 1e9, "--tokens", 500), "a smaller --rate"),
        (("train", "--texts", "texts.jsonl", "--out", "."), "exits would overwrite its weights"),
        (("train", "--texts", "texts.jsonl", "--device", "nonsense"), "device 'nonsense' cannot be used"),
        (("train", "--texts", "texts.jsonl", "--device", "meta"), "device 'meta' cannot be used"),
        (("train", "--texts", "latin.txt"), "latin.txt:1: not UTF-8"),
        (("train", "--texts", "tool.jsonl"), "tool.jsonl:1: messages[0].role is 'tool', which is no valid name"),
        (("certify", "--tasks", "tasks.jsonl", "--max-harm", 2), "level 2.0"),
        (("certify", "--tasks", "tasks.jsonl", "--max-harm", 0.5), "has no model.safetensors"),
        (("certify", "--tasks", "tasks.jsonl", "--max-harm", 0.5, "--concurrency", 0), "concurrency is 0"),
        (("certify", "--tasks", "open.jsonl", "--max-harm", 0.5), "--risk answers"),
        (("certify", "--tasks", "long.jsonl", "--max-harm", 0.9, "--exits", "new"), "no problem fits into the model's"),
    ],
)
def test_input_that_cannot_be_used_is_one_error(
    model: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], match: str
) -> None:
    monkeypatch.chdir(model)
    (model / "open.jsonl").write_text('{"problem": "w1 w2"}')
    (model / "latin.txt").write_bytes(b"w1 \xe9\n")
    (model / "tool.jsonl").write_text('{"messages": [{"role": "tool", "content": "w1"}]}')
    (model / "long.jsonl").write_text("\n".join([json.dumps({"problem": "w1 " * 600, "target": "w1"})] * 2))
    action, *rest = arguments
    if "new" in rest:
        checkpoint = Checkpoint(model, prompts=None, thought=None, threads=1)
        new_exits(model, checkpoint, every=2, shared_head=True).save(model / "new")
    result = run("exits", action, "--model", model, *rest)
    assert result.code == 2
    assert match in result.err.splitlines()[-1]


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*arguments: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr("justenough.backends.layers.training.train", work)
    monkeypatch.setattr("justenough.backends.look_ahead.positions", work)
    (model / "file").touch()
    (model / "traces.jsonl").touch()
    trained = run("exits", "train", "--model", model, "--texts", model / "texts.jsonl", "--out", model / "file" / "new")
    assert (trained.code, "cannot write" in trained.error) == (2, True)
    learned = run("exits", "look-ahead", model / "traces.jsonl", "--model", model, "--out", model / "file" / "x.json")
    assert (learned.code, "cannot write" in learned.error) == (2, True)


def test_a_model_in_the_current_folder_has_the_name_of_the_folder(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model)
    named = ("--shape", "sequential", "--out", "out.jsonl")
    few = ("--tasks", "tasks.jsonl", "--limit", 1, "--max-tokens", 3)
    assert run("collect", "--model", "hf:.", *few, *named).code == 0
    assert {trace.model for trace in read_traces(model / "out.jsonl").traces} == {model.name}
