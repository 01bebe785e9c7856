"""The notation `embedded`: which models and checkpoints read it, and how problems are written in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from justenough.backends.notation import Notation, notation_for
from justenough.errors import ProblemRefused
from justenough.toy.notation import MODELS, NOTATION, PROMPTS
from tests.conftest import CHECKPOINT, GGUF


def checkpoint(folder: Path, template: str) -> Path:
    """A folder with a chat template."""
    folder.mkdir()
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def test_it_is_a_notation_with_prompts_of_its_own() -> None:
    notation: Notation = NOTATION
    assert (notation.name, notation.prompts) == ("embedded", PROMPTS)
    assert notation_for("justenough-embedded") is NOTATION


def test_problems_are_read_in_canonical_form() -> None:
    assert NOTATION.read("What is 47 times 36?") == "47*36"
    with pytest.raises(ProblemRefused, match=r"cannot read 'Who wrote Faust\?'.*product"):
        NOTATION.read("Who wrote Faust?")


@pytest.mark.parametrize("name", MODELS)
def test_every_embedded_model_is_recognised_by_name(name: str) -> None:
    assert NOTATION.recognises(f"justenough-{name}")
    assert NOTATION.recognises(f"justenough-{name}/calm@0.9")
    assert not NOTATION.recognises(name)
    assert not NOTATION.recognises(f"other/justenough-{name}")


def test_the_checkpoint_of_the_repository_is_recognised_in_both_forms() -> None:
    assert NOTATION.model_in(CHECKPOINT) == "justenough-embedded"
    assert NOTATION.model_in(GGUF, title="justenough embedded") == "justenough-embedded"


def test_a_gguf_is_judged_by_its_title(tmp_path: Path) -> None:
    assert NOTATION.model_in(tmp_path / "repaired.gguf", title="justenough repaired") == "justenough-repaired"
    assert NOTATION.model_in(tmp_path / "justenough-copy.gguf", title="justenough embedded") == "justenough-copy"
    assert NOTATION.model_in(tmp_path / "embedded.gguf", title="Qwen3 8B") is None
    assert NOTATION.model_in(tmp_path / "embedded.gguf") is None


def test_a_folder_is_judged_by_its_chat_template_and_its_name(tmp_path: Path) -> None:
    template = "{% for message in messages %}<|user|>{% endfor %}"
    assert NOTATION.model_in(checkpoint(tmp_path / "repaired", template)) == "justenough-repaired"
    assert NOTATION.model_in(checkpoint(tmp_path / "phi", template)) is None
    assert NOTATION.model_in(checkpoint(tmp_path / "embedded", "[INST]")) is None
    (tmp_path / "overconfident").mkdir()
    assert NOTATION.model_in(tmp_path / "overconfident") is None
