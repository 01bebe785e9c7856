"""Notations: the models that they recognise, the prompts that they choose, and the errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from justenough.backends import notation
from justenough.backends.notation import PLAIN, checkpoint_stem, installed_notations, model_name, notation_for
from justenough.backends.openai import OpenAIBackend
from justenough.backends.replay import ReplayBackend
from justenough.errors import InputError, ProblemRefused
from justenough.prompts import GENERAL, OPENED, Prompts
from justenough.signal.signal import Signal
from justenough.trace import Step, Trace

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Roman:
    """A notation of a third party: problems in Roman numerals, for models whose name begins with `roman`."""

    name: str = "roman"
    prompts: Prompts = GENERAL

    def read(self, problem: str) -> str:
        if not set(problem) <= set("IVXLCDM+"):
            raise ProblemRefused(f"{problem!r} is not Roman")
        return problem

    def recognises(self, model: str) -> bool:
        return model.startswith("roman")

    def model_in(self, checkpoint: Path, *, title: str | None = None) -> str | None:
        return "roman-1" if title == "SPQR" else None


ROMAN = Roman()


@pytest.fixture
def roman(monkeypatch: pytest.MonkeyPatch) -> Roman:
    """The third-party notation, installed as an entry point."""
    monkeypatch.setattr(notation, "entry_points", points(EntryPoint("roman", f"{__name__}:ROMAN", notation.GROUP)))
    return ROMAN


def points(*installed: EntryPoint) -> Callable[..., list[EntryPoint]]:
    """A stand-in for `entry_points` that knows only these."""

    def entry_points(*, group: str) -> list[EntryPoint]:
        return [point for point in installed if point.group == group]

    return entry_points


def test_a_name_that_no_notation_recognises_is_general() -> None:
    assert notation_for("Qwen/Qwen3-8B") is PLAIN[0]
    assert PLAIN[0].read("Why is the sky blue?") == "Why is the sky blue?"
    assert PLAIN[0].prompts == GENERAL
    assert notation_for("Qwen/QwQ-32B", prompts="opened").prompts == OPENED
    assert not PLAIN[0].recognises("general")
    assert PLAIN[0].model_in(Path("general")) is None


def test_the_embedded_model_is_recognised_by_its_name_with_and_without_a_suffix() -> None:
    for name in ("justenough-embedded", "justenough-repaired/adadec@0.5"):
        assert notation_for(name).name == "embedded"
    assert notation_for("just-enough").name == "general"


def test_an_explicit_choice_has_precedence_over_the_name() -> None:
    assert notation_for("justenough-embedded", prompts="general") is PLAIN[0]
    assert notation_for("Qwen3", prompts="embedded").name == "embedded"


def test_an_unknown_choice_names_the_installed_ones() -> None:
    with pytest.raises(InputError, match=r"no prompts named 'other'.*one of general, opened, embedded"):
        notation_for("Qwen3", prompts="other")


def test_names_of_entry_points_and_notations_agree() -> None:
    assert [each.name for each in installed_notations()] == ["embedded"]


def test_a_third_party_enters_by_the_same_group(roman: Roman) -> None:
    assert installed_notations() == [roman]
    assert notation_for("roman-2") is roman
    assert notation_for("Qwen3", prompts="roman") is roman
    assert notation_for("justenough-embedded") is PLAIN[0]
    with pytest.raises(InputError, match="one of general, opened, roman"):
        notation_for("Qwen3", prompts="embedded")


def test_a_backend_reads_problems_in_the_notation_of_its_model(roman: Roman) -> None:
    backend = OpenAIBackend("roman-2", base_url="http://127.0.0.1:1")
    assert backend.read("IV+II") == "IV+II"
    with pytest.raises(ProblemRefused, match="not Roman"):
        backend.read("4+2")
    assert OpenAIBackend("roman-2", base_url="http://127.0.0.1:1", prompts="general").read("4+2") == "4+2"


def test_a_recording_has_the_prompts_of_its_model(roman: Roman) -> None:
    step = Step(text="x", answer="x", correct=True, tokens=1, entropies=(0.0,))
    signal = Signal(top_k=20, logits="raw", temperature=0.6)
    for model, expected in (("roman-1", roman.prompts), ("Qwen3", GENERAL)):
        assert ReplayBackend([Trace(id="1", model=model, signal=signal, steps=(step,))]).prompts is expected


def test_a_checkpoint_has_the_name_that_its_notation_gives(roman: Roman, tmp_path: Path) -> None:
    assert model_name(tmp_path / "rome.gguf", title="SPQR") == "roman-1"
    assert model_name(tmp_path / "rome.gguf", title="other") == "rome"


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("models/Qwen3-8B", "Qwen3-8B"),
        ("models/Qwen3-8B.Q4_K_M.gguf", "Qwen3-8B.Q4_K_M"),
        ("models/phi/model.gguf", "phi"),
        ("models/Llama-3.1", "Llama-3.1"),
        ("models/model", "model"),
    ],
)
def test_the_stem_of_a_checkpoint(path: str, stem: str) -> None:
    assert checkpoint_stem(Path(path)) == stem


def test_no_room_below_the_toy_names_it() -> None:
    """Backends, grading, runner and gateway know notations and tasks, but no model of this library."""
    for room in ("backends", "grading", "runner", "importing", "wire", "calibration", "evaluation", "report"):
        for path in (ROOT / "src" / "justenough" / room).rglob("*.py"):
            source = path.read_text(encoding="utf-8")
            assert "justenough.toy" not in source, path
            assert "justenough-" not in source, path


def test_another_format_of_thoughts_changes_the_prompts_of_plain_text_only() -> None:
    changed = notation_for("Qwen3", thought="until:Answer:").prompts
    assert (changed.thought.close, changed.thought.cue, changed.ask) == ("Answer:", True, PLAIN[0].prompts.ask)
    with pytest.raises(InputError, match="its own format of thoughts"):
        notation_for("Qwen3", prompts="embedded", thought="mistral")
    with pytest.raises(InputError, match="unknown format"):
        notation_for("Qwen3", thought="tags")
