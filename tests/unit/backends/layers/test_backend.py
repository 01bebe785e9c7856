"""The backend with early exits: its streams, its rows, its SPECs and its errors."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from justenough.backends.layers.backend import LayerExitBackend, open_calm, open_deebert
from justenough.backends.layers.certificate import certified
from justenough.backends.layers.leaving import Calm, DeeBert, Leaving
from justenough.backends.layers.ramps import FOLDER, WEIGHTS, OffRamps
from justenough.backends.layers.training import new_exits
from justenough.backends.protocol import Finish, Message, Request
from justenough.backends.registry import Options, open_backend
from justenough.backends.transformers import Checkpoint, TransformersBackend
from justenough.errors import InputError
from justenough.grading import Exact, Problem
from justenough.runner import Runner, RunSettings
from justenough.trace import Token
from tests.conftest import CHECKPOINT
from tests.unit.backends.layers.small import foreign, small

PROBLEMS = ("47*36", "5821%7", "41+93-28")


def request(problem: str, *, temperature: float = 0.8, max_tokens: int = 80) -> Request:
    return Request(
        messages=(Message("user", f"{problem}\nOne step."),),
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=20,
        seed=0,
        key=(problem, 1),
    )


async def alone(backend: TransformersBackend, problems: Sequence[str] = PROBLEMS) -> list[list[Token | Finish]]:
    return [[item async for item in backend.stream(request(problem))] for problem in problems]


async def together(backend: TransformersBackend, problems: Sequence[str] = PROBLEMS) -> list[list[Token | Finish]]:
    async def one(problem: str) -> list[Token | Finish]:
        return [item async for item in backend.stream(request(problem))]

    return list(await asyncio.gather(*(one(problem) for problem in problems)))


def bits(items: list[Token | Finish]) -> list[tuple[str, Sequence[float] | None]]:
    return [(item.text, item.top_logprobs) for item in items if isinstance(item, Token)]


@pytest.mark.parametrize("never", [None, Calm(2.0), DeeBert(0.0)])
def test_without_exits_the_bits_are_those_of_the_whole_network(never: Leaving | None) -> None:
    whole = asyncio.run(alone(TransformersBackend(CHECKPOINT, threads=1)))
    mine = asyncio.run(alone(LayerExitBackend(CHECKPOINT, never, threads=1)))
    assert [bits(items) for items in mine] == [bits(items) for items in whole]
    assert {item.layers for items in mine for item in items if isinstance(item, Token)} == {4}


@pytest.mark.parametrize("leaving", [Calm(2.0), Calm(0.999)])
def test_concurrent_streams_generate_what_they_generate_alone(leaving: Leaving) -> None:
    single = asyncio.run(alone(LayerExitBackend(CHECKPOINT, leaving, threads=1)))
    crowd = asyncio.run(together(LayerExitBackend(CHECKPOINT, leaving, threads=1)))
    for one, other in zip(single, crowd, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            if isinstance(mine, Token) and isinstance(theirs, Token):
                assert (mine.text, mine.layers) == (theirs.text, theirs.layers)
                assert mine.top_logprobs == pytest.approx(theirs.top_logprobs, abs=1e-3)


def test_a_step_counts_the_layers_of_its_tokens() -> None:
    async def run() -> tuple[int, int]:
        backend = LayerExitBackend(CHECKPOINT, Calm(0.9), threads=1)
        runner = Runner(backend, RunSettings(max_steps=1), grader=Exact())
        step = (await runner.run(Problem(id="x", problem="47*36", target="1692"))).trace.steps[0]
        return int(str(step.extra["layers"])), step.tokens

    layers, tokens = asyncio.run(run())
    assert tokens < layers < 4 * tokens


def test_a_closed_stream_frees_its_row() -> None:
    async def run() -> int:
        backend = LayerExitBackend(CHECKPOINT, Calm(0.9), concurrency=1, threads=1)
        for _ in range(3):
            stream = backend.stream(request("47*36"))
            await anext(aiter(stream))
            await stream.aclose()  # type: ignore[attr-defined]
        return len((await alone(backend, ["47*36"]))[0])

    assert asyncio.run(asyncio.wait_for(run(), 20)) > 10


def test_specs_name_the_folder_and_the_threshold() -> None:
    assert open_calm(f"{CHECKPOINT}@0.75", Options()).model == "justenough-embedded/calm@0.75"
    assert open_deebert(f"{CHECKPOINT}@0.5", Options()).model == "justenough-embedded/deebert@0.5"
    assert open_calm(str(CHECKPOINT), Options()).leaving == Calm(
        certified(CHECKPOINT / FOLDER, "softmax")[1].threshold()
    )
    for wrong in ("", "@0.5", f"{CHECKPOINT}@much"):
        with pytest.raises(InputError):
            open_calm(wrong, Options())
    with pytest.raises(InputError, match="no certificate for entropy"):
        open_deebert(str(CHECKPOINT), Options())


def test_hf_with_exits_is_the_same_as_calm() -> None:
    exits = str(CHECKPOINT / FOLDER)
    backend = open_backend(f"hf:{CHECKPOINT}", exits=exits, leave="softmax@0.75")
    assert backend.model == "justenough-embedded/calm@0.75"
    by_certificate = open_backend(f"hf:{CHECKPOINT}", exits=exits)
    assert isinstance(by_certificate, LayerExitBackend)
    assert by_certificate.scope is not None
    assert by_certificate.model == open_calm(str(CHECKPOINT), Options()).model


@pytest.mark.parametrize(
    ("spec", "exits", "leave", "match"),
    [
        ("embedded", "x", None, "has no layer exits"),
        (f"hf:{CHECKPOINT}", None, "softmax@0.5", "there are no exits"),
        (f"hf:{CHECKPOINT}", str(CHECKPOINT / FOLDER), "classifier@0.5", "no early classifier"),
        (f"hf:{CHECKPOINT}", str(CHECKPOINT / FOLDER), "saturation", "no certificate for saturation"),
        (f"hf:{CHECKPOINT}", "nowhere", "softmax@0.5", r"nowhere has no model\.safetensors"),
    ],
)
def test_exits_that_cannot_be_used_are_refused(spec: str, exits: str | None, leave: str | None, match: str) -> None:
    with pytest.raises(InputError, match=match):
        open_backend(spec, exits=exits, leave=leave)


def test_a_certificate_of_another_precision_is_refused() -> None:
    with pytest.raises(InputError, match="another dtype: float32, not bfloat16"):
        open_backend(f"hf:{CHECKPOINT}", exits=str(CHECKPOINT / FOLDER), dtype="bfloat16")


def test_a_certified_margin_is_refused_outside_its_scope() -> None:
    certified = open_calm(str(CHECKPOINT), Options())
    assert len(asyncio.run(alone(certified, ["47*36"]))[0]) > 10
    with pytest.raises(InputError, match=r"certified only for temperature 0\.8, not 0\.6"):
        certified.stream(request("47*36", temperature=0.6))
    open_calm(f"{CHECKPOINT}@0.75", Options()).stream(request("47*36", temperature=0.6))


def test_a_checkpoint_without_ramps_or_with_others_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "embedded"
    shutil.copytree(CHECKPOINT, folder, ignore=shutil.ignore_patterns("*.gguf"))
    (folder / FOLDER / WEIGHTS).unlink()
    with pytest.raises(InputError, match="offramps"):
        LayerExitBackend(folder, Calm(2.0))
    OffRamps.like(small()).save(folder / FOLDER)
    assert not (folder / FOLDER / "certificate.json").exists()
    with pytest.raises(InputError, match="another checkpoint"):
        LayerExitBackend(folder, Calm(2.0))


def test_exits_of_a_model_with_other_weights_are_refused(tmp_path: Path) -> None:
    foreign(tmp_path)
    checkpoint = Checkpoint(tmp_path, prompts=None, thought=None, threads=1)
    new_exits(tmp_path, checkpoint, every=2, shared_head=True).save(tmp_path / FOLDER)
    LayerExitBackend(tmp_path, Calm(0.5), threads=1)
    weight = checkpoint.network.model.layers[3].mlp.up_proj.weight
    before = weight.data.clone()
    weight.data += 0.01
    checkpoint.network.save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="belongs to another model"):
        LayerExitBackend(tmp_path, Calm(0.5), threads=1)
    weight.data = before
    checkpoint.network.save_pretrained(tmp_path, max_shard_size="20KB")
    LayerExitBackend(tmp_path, Calm(0.5), threads=1)


def test_an_architecture_without_exits_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "embedded"
    shutil.copytree(CHECKPOINT, folder, ignore=shutil.ignore_patterns("*.gguf"))
    backend = LayerExitBackend(folder, None, concurrency=2, threads=1)
    assert (backend.model, backend.concurrency) == ("justenough-embedded", 2)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mistral"}))
    with pytest.raises(InputError, match="is a mistral"):
        LayerExitBackend(folder, None)


def test_a_full_backend_makes_the_next_stream_wait() -> None:
    async def run() -> bool:
        backend = LayerExitBackend(CHECKPOINT, Calm(0.9), concurrency=1, threads=1)
        first = aiter(backend.stream(request("47*36")))
        await anext(first)
        second = asyncio.ensure_future(anext(aiter(backend.stream(request("12*12")))))
        await asyncio.sleep(0.05)
        waited = not second.done()
        async for _ in first:
            pass
        await second
        return waited

    assert asyncio.run(asyncio.wait_for(run(), 20))
