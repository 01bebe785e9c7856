"""How a family of models must be asked, when plain text will not do.

A notation belongs to models that read problems in a language of their own. It has its own prompts. It recognises its
models by name or by checkpoint, so that they are asked in the same way wherever they are served. Notations are entry
points of the group `justenough.notations`; built-in and third-party notations are loaded in the same way.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, Protocol

from justenough.errors import InputError
from justenough.prompts import GENERAL, OPENED, Prompts
from justenough.signal.thought import thought_format

GROUP: Final = "justenough.notations"


class Notation(Protocol):
    """What a backend must know about the language of a model; the methods here are those of plain text."""

    @property
    def name(self) -> str:
        """The name that `--prompts` takes; equal to the name of the entry point."""
        return self.prompts.name

    @property
    def prompts(self) -> Prompts:
        """The texts that the model is asked with."""
        return GENERAL

    def read(self, problem: str) -> str:
        """The problem in this notation; raises `ProblemRefused` for a problem outside the language."""
        return problem

    def recognises(self, model: str) -> bool:
        """Whether a model of this name reads this notation."""
        return False

    def model_in(self, checkpoint: Path, *, title: str | None = None) -> str | None:
        """The name of the model in a checkpoint, or None if the model does not read this notation.

        `checkpoint` is a folder in Hugging Face form or a GGUF file; `title` is the `general.name` of a GGUF file.
        """
        return None


class General(Notation):
    """Problems as they are, for any chat model; used when no other notation recognises the model."""

    def __init__(self, prompts: Prompts = GENERAL) -> None:
        self._prompts = prompts

    @property
    def prompts(self) -> Prompts:
        """The texts that the model is asked with."""
        return self._prompts


PLAIN: Final[tuple[Notation, ...]] = (General(), General(OPENED))
"""`general`, the default, and `opened`."""


def installed_notations() -> list[Notation]:
    """The notations of all installed packages, sorted by name, without the built-in ones."""
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return [point.load() for point in points]


def notation_for(model: str, *, prompts: str | None = None, thought: str | None = None) -> Notation:
    """The notation named `prompts`; without a name, the one that recognises the model, else `general`.

    `thought` names the format of the model's thoughts, where it is another than the notation's. Raises `InputError` for
    a name that is not installed, and for another format in a notation that has its own.
    """
    notations = [*PLAIN, *installed_notations()]
    if prompts is None:
        notation = next((one for one in notations if one.recognises(model)), PLAIN[0])
    elif (named := next((one for one in notations if one.name == prompts), None)) is not None:
        notation = named
    else:
        names = ", ".join(one.name for one in notations)
        raise InputError(f"there are no prompts named {prompts!r}", hint=f"use one of {names}")
    if thought is None:
        return notation
    format = thought_format(thought)
    if notation not in PLAIN:
        raise InputError(f"the notation {notation.name} has its own format of thoughts", hint="leave --thought out")
    return General(notation.prompts.with_thought(format))


def model_name(checkpoint: Path, *, title: str | None = None) -> str:
    """The name of the model in a checkpoint: as its notation gives it, else from the path.

    A file that is called `model.gguf` has the name of its folder.
    """
    for notation in installed_notations():
        if (name := notation.model_in(checkpoint, title=title)) is not None:
            return name
    return checkpoint_stem(checkpoint)


def checkpoint_stem(checkpoint: Path) -> str:
    """The name of the folder, or of the file without its ending; for `model.gguf`, the name of its folder."""
    if checkpoint.suffix != ".gguf":
        return checkpoint.name if checkpoint.name not in ("", "..") else checkpoint.resolve().name
    return checkpoint.resolve().parent.name if checkpoint.stem == "model" else checkpoint.stem
