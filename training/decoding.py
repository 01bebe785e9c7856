"""Samples many completions from a checkpoint, on the decoder that ships. Assessment and reinforcement use it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tokenizers import Tokenizer

from justenough.backends.batched import Slot
from justenough.backends.noise import noise
from justenough.signal.entropy import token_entropy
from justenough.toy.engine import Engine
from training.checkpoints import hugging_face_weights
from training.data import AGAIN, ONE_STEP
from training.export import write_onnx
from training.model import Llama
from training.tokenizer import ASSISTANT, END, USER

TOP_K: Final = 20


class Completion(NamedTuple):
    """One generated turn: its ids with the end of turn, and the entropy in bits of each token before that end."""

    ids: list[int]
    entropies: list[float]
    ended: bool


def engine_of(model: Llama, *, width: int, threads: int = 1) -> Engine:
    """The shipped decoder with this model's weights in half precision, the precision that ships."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(hugging_face_weights(model), model.shape, path)
        return Engine(path, width=width, threads=threads)


def first_prompt(problem: str) -> str:
    """The prompt for one step, up to the place where the model begins."""
    return f"{USER}{problem}{ONE_STEP}{END}{ASSISTANT}"


def next_prompt(prompt: str, turn: str) -> str:
    """The conversation so far with the request to check again, up to the place where the model begins."""
    return f"{prompt}{turn}{END}{USER}{AGAIN}{END}{ASSISTANT}"


def complete(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    *,
    keys: Sequence[tuple[str, int]],
    end: int,
    temperature: float,
    seed: int,
    limit: int,
) -> list[Completion]:
    """One completion for each prompt of token ids. The key of the noise is (seed, problem, step), as in the library."""
    done: list[Completion | None] = [None] * len(prompts)
    generated: dict[Slot, tuple[int, list[int], list[tuple[float, ...]]]] = {}
    following = 0
    while following < len(prompts) or engine.busy:
        while following < len(prompts):
            prompt = prompts[following]
            uniforms = noise(seed, *keys[following], limit)
            slot = engine.admit(prompt, uniforms=uniforms, temperature=temperature, top_k=TOP_K)
            if slot is None:
                break
            generated[slot] = (following, [], [])
            following += 1
        for slot, sample in engine.step():
            index, ids, logprobs = generated[slot]
            ids.append(sample.token_id)
            logprobs.append(sample.top_logprobs)
            ended = sample.token_id == end
            room = min(limit, engine.positions - len(prompts[index]))
            if ended or len(ids) >= room:
                engine.release(slot)
                counted = logprobs[:-1] if ended else logprobs
                bits = token_entropy(counted).tolist() if counted else []
                done[index] = Completion(ids, bits, ended)
                del generated[slot]
    return [completion for completion in done if completion is not None]


def turn_text(completion: Completion, tokenizer: Tokenizer) -> str:
    """The text of the turn without its end token."""
    ids = completion.ids[:-1] if completion.ended else completion.ids
    return str(tokenizer.decode(ids, skip_special_tokens=False))
