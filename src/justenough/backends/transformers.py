"""`hf:PATH`: a checkpoint in Hugging Face form, decoded by transformers in this process.

For models without a server, and as a reference: entropies of the raw logits, and noise that depends only on (seed,
problem, step, position). Streams are decoded together; with a concurrency of 1, each has exactly the bits that it would
have alone. It reads only local files and runs no code from the checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from justenough.backends.batched import BatchedBackend, Decoder
from justenough.backends.notation import model_name, notation_for
from justenough.backends.protocol import Message
from justenough.backends.registry import Options
from justenough.errors import InputError, MissingExtra
from justenough.prompts import Prompts

_NO_END: Final = -1
"""The end of a model without an end-of-sequence token, which no token has."""
DTYPES: Final = ("float32", "bfloat16", "float16", "float64")


class Loading(NamedTuple):
    """How a checkpoint is loaded."""

    dtype: str = "float32"
    """One of `DTYPES`."""
    device: str = "cpu"
    """A device of torch, such as `cuda`."""


class Checkpoint:
    """A causal language model with a chat template, for a batched decoder."""

    def __init__(
        self,
        path: Path,
        *,
        prompts: str | None,
        thought: str | None,
        threads: int | None,
        loading: Loading | None = None,
    ) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MissingExtra("transformers", extra="hf") from error
        if not (path / "config.json").is_file():
            raise InputError(f"{path} is not a checkpoint in Hugging Face form", hint="use a folder with config.json")
        transformers.utils.logging.disable_progress_bar()
        loading = loading or Loading()
        if loading.dtype not in DTYPES:
            raise InputError(f"the dtype is {loading.dtype!r}", hint="use float32, bfloat16 or float16")
        if threads is not None and threads < 1:
            raise InputError(f"{threads} threads", hint="use at least 1")
        self._tokenizer, self.network = _load(path, getattr(torch, loading.dtype))
        try:
            self.network.to(loading.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"device {loading.device!r} cannot be used: {reason}", hint="use cpu or cuda") from error
        if self.network.device.type == "meta":
            raise InputError("device 'meta' cannot be used: it holds no weights", hint="use cpu or cuda")
        if threads is not None:
            torch.set_num_threads(threads)
        self.name = model_name(path)
        self._notation = notation_for(self.name, prompts=prompts, thought=thought)
        self.prompts: Prompts = self._notation.prompts
        config = self.network.config.get_text_config(decoder=True)
        self.vocabulary = int(config.vocab_size)
        self.positions = int(getattr(config, "max_position_embeddings", sys.maxsize))
        own, more = self._tokenizer.eos_token_id, self.network.generation_config.eos_token_id
        ends = [own, *(more if isinstance(more, list) else [more])]
        self.ends = tuple(dict.fromkeys(int(each) for each in ends if each is not None))
        """The tokens that end a sequence."""
        self.end = self.ends[0] if self.ends else _NO_END

    def read(self, problem: str) -> str:
        """The problem in the model's notation; raises `ProblemRefused` for a problem outside its language."""
        return self._notation.read(problem)

    def tokenizer(self) -> Checkpoint:
        """The tokenizer is loaded already."""
        return self

    def decoder(self, *, rows: int, threads: int) -> Decoder:
        """A decoder with this number of rows."""
        from justenough.backends.rows import CachedRows, NetworkDecoder

        cached = CachedRows(self.network, rows=rows)
        return NetworkDecoder(
            cached.read,
            cached.feed,
            rows=rows,
            vocabulary=self.vocabulary,
            positions=self.positions,
            ends=self.ends,
            copy=cached.copy,
        )

    def texts(self) -> Callable[[int], str]:
        """A function that takes the ids of one sequence in turn and returns the text of each."""
        return texts(self._tokenizer)

    def conversation(self, messages: tuple[Message, ...], *, continue_final: bool) -> list[int]:
        """Token ids of a conversation, ready for an answer or, with `continue_final`, for a continuation."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        from jinja2 import TemplateError

        try:
            text = self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=not continue_final, continue_final_message=continue_final
            )
        except (ValueError, TypeError, TemplateError) as error:
            raise InputError(
                f"the chat template of {self.name} cannot write this conversation: {_one_line(error)}",
                hint="give the model another chat_template.jinja",
            ) from error
        return self.ids(text, special=False)

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a plain text, with or without the special tokens that the tokenizer adds."""
        ids = list(self._tokenizer(text, add_special_tokens=special)["input_ids"])
        if (largest := max(ids, default=0)) >= self.vocabulary:
            what = f"the tokenizer knows the token {largest}, the model only {self.vocabulary} tokens"
            raise InputError(what, hint="does the tokenizer belong to the model?")
        return ids


def _load(path: Path, dtype: Any) -> tuple[Any, Any]:
    """The tokenizer and the network; raises `InputError` if they cannot be loaded or weights are missing."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hint = "is the checkpoint complete?"
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        network, report = AutoModelForCausalLM.from_pretrained(
            path, local_files_only=True, dtype=dtype, output_loading_info=True
        )
    # The libraries raise errors of many kinds; `tokenizers` raises plain `Exception`.
    except Exception as error:
        raise InputError(f"transformers cannot load {path}: {_one_line(error)}", hint=hint) from error
    # transformers would draw missing weights by chance.
    if missing := sorted(report["missing_keys"]):
        what = f"{path} lacks {len(missing)} weights that its config.json describes, the last is {missing[-1]}"
        raise InputError(what, hint=hint)
    return tokenizer, network.eval()


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


class TransformersBackend(BatchedBackend):
    """A causal language model with a chat template, in this process."""

    def __init__(
        self,
        path: Path,
        *,
        concurrency: int = 8,
        prompts: str | None = None,
        thought: str | None = None,
        threads: int | None = None,
        loading: Loading | None = None,
    ) -> None:
        self.checkpoint = Checkpoint(path, prompts=prompts, thought=thought, threads=threads, loading=loading)
        super().__init__(self.checkpoint, concurrency=concurrency)


def texts(tokenizer: Any) -> Callable[[int], str]:
    """A function that takes the ids of one sequence in turn and returns the text of each.

    A character of several tokens belongs to the token that completes it. Raises `InputError` for a tokenizer that is
    not one of the `tokenizers` library.
    """
    from tokenizers.decoders import DecodeStream

    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        raise InputError(f"{type(tokenizer).__name__} cannot decode token by token", hint="use a fast tokenizer")
    stream = DecodeStream(skip_special_tokens=False)
    return lambda token_id: stream.step(inner, token_id) or ""


def open_transformers(model: str, options: Options) -> TransformersBackend:
    """`hf:PATH`; with the options `exits` and `leave`, tokens may exit early."""
    if not model:
        raise InputError("hf needs a folder", hint="--model hf:FOLDER")
    if options.exits is not None:
        from justenough.backends.layers.backend import open_exits

        return open_exits(Path(model), options, exits=Path(options.exits), leave=options.leave)
    return TransformersBackend(
        Path(model),
        concurrency=options.concurrency or 8,
        prompts=options.prompts,
        thought=options.thought,
        threads=options.threads,
        loading=Loading(options.dtype, options.device),
    )
