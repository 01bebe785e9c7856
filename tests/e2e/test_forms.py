"""The three forms of the embedded model agree on logits: ONNX, Hugging Face, GGUF."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.toy.backend import EmbeddedBackend

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "models" / "embedded"
TEXT = "<|user|>47*36\nOne step.<|end|><|assistant|><think>47*36=1410+282=1692\n\n</think>Answer: 1692<|end|>"


def token_ids() -> list[int]:
    from tokenizers import Tokenizer

    return list(Tokenizer.from_file(str(FOLDER / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids)


def onnx_logits(ids: list[int]) -> NDArray[np.float64]:
    """Logits at each position, (T, V), by feeding the tokens one at a time."""
    engine = EmbeddedBackend().engine
    rows = []
    slot = engine.admit(ids, uniforms=np.zeros(1), temperature=0.0, top_k=20)
    assert slot is not None
    for _ in ids:
        engine.step()
        rows.append(engine.logits(slot).astype(np.float64))
    engine.release(slot)
    return np.stack(rows)


def centred(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-probabilities: logits are only defined up to a constant."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    normal: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normal


def test_servers_find_the_checkpoint_alone() -> None:
    """vLLM loads every `.safetensors` of the folder, and once failed on the off-ramps."""
    assert [path.name for path in FOLDER.glob("*.safetensors")] == ["model.safetensors"]


def test_hugging_face_agrees() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    ids = token_ids()
    assert tokenizer(TEXT, add_special_tokens=False)["input_ids"] == ids
    chat = [{"role": "user", "content": "47*36\nOne step."}]
    rendered = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert TEXT.startswith(rendered)
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits[0].double().numpy()
    assert np.abs(theirs - onnx_logits(ids)).max() < 1e-3


def test_gguf_agrees(llama_server: str) -> None:
    """Through llama.cpp's own server: log-probabilities of the whole vocabulary after each prefix."""
    import httpx

    ids = token_ids()
    ours = centred(onnx_logits(ids))
    vocabulary = ours.shape[1]
    with httpx.Client(base_url=llama_server, timeout=60) as client:
        for length in range(8, len(ids), 3):
            reply = client.post(
                "/completion",
                json={
                    "prompt": ids[:length],
                    "n_predict": 1,
                    "temperature": 1.0,
                    "n_probs": vocabulary,
                    "top_k": 0,
                    "cache_prompt": False,
                },
            ).json()
            entries = reply["completion_probabilities"][0]["top_logprobs"]
            found = np.full(vocabulary, np.nan)
            for entry in entries:
                found[entry["id"]] = entry["logprob"]
            known = np.isfinite(found) & (ours[length - 1] > -30)
            assert known.sum() > 0.5 * vocabulary
            assert np.abs(found[known] - ours[length - 1][known]).max() < 1e-3


def test_the_shipped_forms_are_small() -> None:
    assert os.path.getsize(FOLDER / "model.safetensors") <= 8_000_000
    packaged = ROOT / "src/justenough/toy/models"
    assert sum(path.stat().st_size for path in packaged.iterdir()) <= 8_000_000


def test_the_engine_refuses_more_rows_than_it_has() -> None:
    async def full() -> bool:
        engine = EmbeddedBackend(concurrency=1).engine
        first = engine.admit([1, 2], uniforms=np.zeros(3), temperature=0.0, top_k=5)
        return first is not None and engine.admit([1], uniforms=np.zeros(3), temperature=0.0, top_k=5) is None

    assert asyncio.run(full())
