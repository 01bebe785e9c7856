"""The prompts: the runner and the gateway send the same texts.

Traces and calibrations carry these texts and their digest, so a model is served with the prompts of its calibration.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Final

from justenough.errors import InputError
from justenough.files import Json, read_as, shown
from justenough.signal.thought import THINK, ThoughtFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """The texts for each turn; `{problem}` stands for the problem."""

    name: str
    ask: str
    """Asks for one sequential step."""
    think: str
    """Asks for one long thought, of which segments are steps."""
    refine: str
    """Asks to re-examine the attempt before."""
    wait: str
    """Continues a thought that was about to end."""
    close: str
    """Ends the thought."""
    answer: str
    """Cues the answer after the thought was ended for the model."""
    thought: ThoughtFormat = THINK
    """How the model marks its thought."""

    @property
    def digest(self) -> str:
        """SHA-256 of the texts and of the thought's format, without the name."""
        texts = {key: value for key, value in asdict(self).items() if key != "name"}
        return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()

    def with_thought(self, thought: ThoughtFormat) -> Prompts:
        """The same prompts for a model that marks its thought in another way."""
        if thought == self.thought:
            return self
        if thought.tags == self.thought.tags:
            return replace(self, thought=thought)
        if thought.cue:
            return replace(self, thought=thought, close="\n\n", answer=thought.close)
        return replace(self, thought=thought, close=thought.closing)

    def to_json(self) -> dict[str, Json]:
        """A JSON object: the texts, the thought's format, and the digest."""
        texts: dict[str, Json] = {key: getattr(self, key) for key in TEXTS}
        return {"digest": self.digest} | texts | {"thought": asdict(self.thought)}


TEXTS: Final = tuple(field.name for field in fields(Prompts) if field.name != "thought")
KEYS: Final = ("digest", *TEXTS, "thought")
"""Keys of the JSON object."""

_ANSWER: Final = "Reason step by step, then give the final answer on a last line that begins with `Answer:`."
GENERAL: Final = Prompts(
    name="general",
    ask="{problem}\n\n" + _ANSWER,
    think="{problem}\n\n" + _ANSWER,
    refine=(
        "Re-examine the problem and your attempt with fresh eyes, and correct what is wrong. Reason step by step, then"
        " give the final answer in the same form."
    ),
    # Without a space at its end: most vocabularies have the space at the beginning of the next word.
    wait="\n\nWait,",
    close="\n</think>\n\n",
    answer="Answer:",
)
OPENED: Final = replace(GENERAL, name="opened", thought=ThoughtFormat(opened=True))
"""For a model whose chat template opens the thought in the prompt."""


def prompts_from_json(value: Json, *, where: str = "prompts") -> Prompts:
    """Read a `prompts` object; raises `InputError` that names the key. A digest of other texts is an error."""
    hint = "take the texts and the digest from one `prompts` object"
    prompts = read_as(value, Prompts, where=where, hint=hint)
    digest = value.get("digest") if isinstance(value, dict) else None
    if digest is not None and digest != prompts.digest:
        raise InputError(f"{where}.digest is {shown(digest)}, the texts have {prompts.digest!r}", hint=hint)
    return prompts
