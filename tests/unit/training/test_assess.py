from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from justenough.toy.families import questions, split_of
from training import all as sequence
from training.assess import Attempt, attempt, figures, table
from training.checkpoints import hugging_face_weights, load
from training.model import Llama, Shape
from training.tokenizer import build


def invented(*, count: int = 90) -> list[Attempt]:
    """Attempts whose first step is right in every second round of problems, and whose entropy tells it."""
    found = []
    for index, question in enumerate(islice(questions("calibration"), count)):
        right = index // 9 % 2 == 0
        entropy = (0.1 if right else 0.5) + index % 9 * 0.01 + index * 1e-4
        found.append(
            Attempt(question, (right, True), (False, index == 0), (10, 30), 0.05 if index == 9 else entropy, ("", ""))
        )
    return found


def test_figures_count_by_step_family_and_level() -> None:
    found = figures(invented())
    first = found["steps"]["all"][0]
    assert first is not None
    assert (first.value, first.n) == (0.5, 90)
    assert {cell: row[0].n for cell, row in found["steps"].items() if row[0] is not None}["product"] == 30
    assert len(found["groups"]) == 9
    assert found["unanswered"] == [0, 1]
    assert found["tokens"] == [10.0, 30.0]
    assert found["confidently_wrong"] is not None
    assert found["confidently_wrong"].value == pytest.approx(1 / 45)
    assert found["verdict"] == "separates"
    assert found["within_groups"] is not None
    assert found["within_groups"].value > 0.9
    assert "separates; gating not refused" in table(found)


def test_an_attempt_runs_every_step_and_is_the_same_again() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = Shape(
        vocab_size=build().get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=640,
    )
    model = Llama(shape)
    problems = list(islice(questions("calibration"), 3))
    assert all(split_of(problem) == "calibration" for problem in problems)
    first = attempt(model, problems, steps=2)
    assert first == attempt(model, problems, steps=2)
    assert first != attempt(model, problems, steps=2, seed=1)
    for item in first:
        assert len(item.right) == len(item.tokens) == len(item.texts) == 2
        assert item.entropy > 0


def test_the_whole_sequence_trains_exports_and_assesses_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence, "RUNS", tmp_path)
    (tmp_path / "embedded").mkdir()
    (tmp_path / "embedded" / "model.pt").touch()
    modules = [command[0].removeprefix("training.") for command in sequence.commands(problems=10, fresh=False)]
    made = ["export", "calibration", "assess", "train", "export", "assess", "reinforce", "export", "assess"]
    assert modules == [*made, "adadec", "offramps", "calm"]
    assert sequence.commands(problems=10, fresh=True)[0][0] == "training.train"


def test_the_siblings_are_made_from_the_base_as_it_ships() -> None:
    listed = sequence.commands(problems=10, fresh=True, siblings=True)
    modules = [command[0].removeprefix("training.") for command in listed]
    assert modules == ["train", "export", "assess", "reinforce", "export", "assess", "adadec"]
    assert listed[0][listed[0].index("--start") + 1] == "models/embedded"
    assert listed[-1][1:] == ("--models", "overconfident", "repaired")


def test_a_shipped_checkpoint_is_read_bit_for_bit() -> None:
    folder = Path(sequence.__file__).parent.parent / "models" / "embedded"
    shipped = load_file(folder / "model.safetensors")
    read = hugging_face_weights(load(folder))
    assert shipped.keys() == read.keys()
    assert all(np.array_equal(shipped[name], read[name]) for name in shipped)
