"""The checkpoint in Hugging Face form generates the same tokens as the ONNX form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from justenough.backends.protocol import Backend, Finish, Message, Request
from justenough.backends.registry import open_backend
from justenough.backends.rows import CachedRows, Choice
from justenough.errors import InputError
from justenough.toy.backend import EmbeddedBackend
from justenough.trace import Token
from tests.unit.backends.layers.small import foreign

FOLDER = Path(__file__).parent.parent.parent.parent / "models" / "embedded"


def request(problem: str, *, max_tokens: int = 120) -> Request:
    return Request(
        messages=(Message("user", f"{problem}\nOne step."),),
        max_tokens=max_tokens,
        temperature=0.8,
        top_k=20,
        seed=0,
        key=(problem, 1),
    )


async def generate(backend: Backend, problems: list[str]) -> list[list[Token | Finish]]:
    try:
        return [[item async for item in backend.stream(request(problem))] for problem in problems]
    finally:
        await backend.close()


def test_it_generates_the_same_text_as_the_embedded_backend() -> None:
    problems = ["47*36", "5821%7", "41+93-28"]
    theirs = asyncio.run(generate(open_backend(f"hf:{FOLDER}"), problems))
    ours = asyncio.run(generate(EmbeddedBackend(), problems))
    for left, right in zip(theirs, ours, strict=True):
        assert left[-1] == right[-1]
        for mine, other in zip(left[:-1], right[:-1], strict=True):
            assert isinstance(mine, Token)
            assert isinstance(other, Token)
            assert mine.text == other.text
            assert mine.top_logprobs == pytest.approx(other.top_logprobs, abs=1e-3)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        open_backend(f"hf:{tmp_path}")
    with pytest.raises(InputError, match="folder"):
        open_backend("hf:")


def edit(path: Path, changes: Mapping[str, object]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("model.safetensors", "short", "cannot load .*SafetensorError"),
        ("tokenizer.json", "{}", "cannot load .*KeyError"),
        ("tokenizer.json", '{"added_tokens": [], "model": {}}', "cannot load .*Exception"),
        ("config.json", {"intermediate_size": 64}, "cannot load .*RuntimeError"),
        ("config.json", {"num_attention_heads": 5}, "not a multiple of the number of attention heads"),
        ("config.json", {"num_hidden_layers": 6}, r"lacks 9 weights that its config\.json describes, .*layers\.5\."),
    ],
)
def test_a_checkpoint_that_is_damaged_or_not_whole_is_refused(
    tmp_path: Path, file: str, content: str | dict[str, object], match: str
) -> None:
    foreign(tmp_path)
    if isinstance(content, str):
        (tmp_path / file).write_text(content)
    else:
        edit(tmp_path / file, content)
    with pytest.raises(InputError, match=match) as refused:
        open_backend(f"hf:{tmp_path}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("template", "match"),
    [
        (None, "the chat template .*is not set"),
        ("{% for message in messages %}", "the chat template .*Unexpected end of template"),
        ("{{ raise_exception('only systems') }}", "the chat template .*only systems"),
        ("x1", "the tokenizer knows the token 50, the model only 50 tokens"),
    ],
)
def test_a_conversation_that_the_checkpoint_cannot_read_is_refused(
    tmp_path: Path, template: str | None, match: str
) -> None:
    foreign(tmp_path)
    path = tmp_path / "chat_template.jinja"
    path.unlink()
    if template is not None:
        path.write_text(template)
    words = json.loads((tmp_path / "tokenizer.json").read_text())
    words["model"]["vocab"]["x1"] = 50
    (tmp_path / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(InputError, match=match):
        asyncio.run(generate(open_backend(f"hf:{tmp_path}"), ["w1"]))


def test_two_streams_may_be_open_at_a_time() -> None:
    # A recorded thought stays open while its answer is elicited: waiting for its end would be waiting for ever.
    async def nested() -> tuple[int, int]:
        backend = open_backend(f"hf:{FOLDER}")
        outer = aiter(backend.stream(request("47*36")))
        await anext(outer)
        inner = [item async for item in backend.stream(request("12*12"))]
        rest = [item async for item in outer]
        return len(inner), len(rest)

    inner, rest = asyncio.run(asyncio.wait_for(nested(), timeout=20))
    assert inner > 5
    assert rest > 5


def test_streams_are_decoded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    feed = CachedRows.feed

    def spied(self: CachedRows, rows: list[int], ids: list[int]) -> list[Choice]:
        widths.append(len(rows))
        return feed(self, rows, ids)

    monkeypatch.setattr(CachedRows, "feed", spied)
    problems = ["47*36", "5821%7", "41+93-28"]

    async def together() -> list[list[Token | Finish]]:
        backend = open_backend(f"hf:{FOLDER}")
        streams = [backend.stream(request(problem, max_tokens=20)) for problem in problems]

        async def read(stream: AsyncIterator[Token | Finish]) -> list[Token | Finish]:
            return [item async for item in stream]

        try:
            return list(await asyncio.gather(*(read(stream) for stream in streams)))
        finally:
            await backend.close()

    streams = asyncio.run(together())
    assert widths[:10] == [3] * 10
    assert len(widths) == 19
    assert max(len(items) for items in streams) == 21
