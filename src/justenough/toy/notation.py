"""The notation `embedded`: arithmetic such as `47*36`, and the prompts of the embedded models.

The same model may run in this process, behind an OpenAI-compatible server, in llama.cpp or in transformers. It is
recognised everywhere and asked in the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from justenough.backends.notation import checkpoint_stem
from justenough.prompts import Prompts
from justenough.signal.thought import ThoughtFormat
from justenough.toy.families import parse

_PREFIX: Final = "justenough-"
_TITLE: Final = "justenough "
"""How the `general.name` of the GGUF files begins."""
MODELS: Final = ("embedded", "overconfident", "repaired")
"""The embedded models, and the names of their checkpoints."""

PROMPTS: Final = Prompts(
    name="embedded",
    ask="{problem}\nOne step.",
    think="{problem}",
    refine="Check again.",
    wait="",
    close="</think>",
    answer="",
    thought=ThoughtFormat(opened=True),
)


class EmbeddedNotation:
    """Problems of the three families of arithmetic, in their canonical form."""

    name: Final = "embedded"
    prompts: Final = PROMPTS

    def read(self, problem: str) -> str:
        """The problem in canonical form, such as `47*36`; raises `ProblemRefused` for any other problem."""
        return parse(problem).text

    def recognises(self, model: str) -> bool:
        """Whether the name is one of the embedded models', also with a suffix such as `/adadec@0.5`."""
        return model.startswith(_PREFIX)

    def model_in(self, checkpoint: Path, *, title: str | None = None) -> str | None:
        """`justenough-NAME` for a checkpoint of an embedded model, judged by GGUF title or chat template; else None."""
        stem = checkpoint_stem(checkpoint)
        if title is not None:
            ours = title.startswith(_TITLE)
        else:
            template = checkpoint / "chat_template.jinja"
            ours = stem in MODELS and template.is_file() and "<|user|>" in template.read_text(encoding="utf-8")
        if not ours:
            return None
        return stem if stem.startswith(_PREFIX) else f"{_PREFIX}{stem}"


NOTATION: Final = EmbeddedNotation()
