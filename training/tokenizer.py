"""The tokenizer: byte-level BPE in a form that engines read. Each digit and symbol is one token; words are few.

The pre-tokenizer is Qwen2's. It splits numbers into single digits, and llama.cpp knows it by the name `qwen2`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

USER: Final = "<|user|>"
ASSISTANT: Final = "<|assistant|>"
END: Final = "<|end|>"
THINK: Final = "<think>"
CLOSE: Final = "</think>"

QWEN2: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS: Final = ("Answer", "One", "Ġstep", "Check", "Ġagain", "ĊĊ")
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] }}<|end|>"
    "{% elif message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<|end|>"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build() -> Tokenizer:
    """Build the tokenizer: 256 bytes, the words with the parts that merge into them, and five added tokens."""
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        for length in range(1, len(word)):
            if word[: length + 1] not in vocabulary:
                merges.append((word[:length], word[length]))
                vocabulary[word[: length + 1]] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (USER, ASSISTANT, END)])
    tokenizer.add_tokens([AddedToken(token, special=False) for token in (THINK, CLOSE)])
    return tokenizer


def end_of_sequence(tokenizer: Tokenizer) -> int:
    """The id of the token that ends a turn."""
    token_id = tokenizer.token_to_id(END)
    if token_id is None:
        raise ValueError(f"the tokenizer has no {END}")
    return token_id


def belongs_to(checkpoint: Path) -> bool:
    """Whether a checkpoint in Hugging Face form has this tokenizer; its conversations are for no other one."""
    return Tokenizer.from_file(str(checkpoint / "tokenizer.json")).get_vocab() == build().get_vocab()
