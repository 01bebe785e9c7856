"""What the rules with a live model learn: AdaDec's threshold, and off-ramps on a backbone that stays as it is."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from justenough.backends.layers.network import FILE, OffRamps, load_ramps
from justenough.signal.entropy import token_entropy
from justenough.toy.engine import Engine
from justenough.toy.families import questions
from justenough.toy.tokens import packaged
from tests.conftest import CHECKPOINT
from tests.unit.backends.layers.small import small
from training import calm, offramps
from training.adadec import learn, positions, reference
from training.data import Recipe
from training.offramps import Training, conversations, hidden_states, load, loss_of, train
from training.tokenizer import build
from training.train import Schedule, batches


def drawn(
    n: int, *, seed: int
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Entropies, and labels that a logistic curve around one bit draws."""
    rng = np.random.default_rng(seed)
    bits = rng.exponential(0.8, size=n)
    return bits, rng.random(n) < 1 / (1 + np.exp(6 * (bits - 1.0)))


def test_the_learned_threshold_lies_where_ranking_turns() -> None:
    made = learn(*drawn(20_000, seed=2))
    assert made.threshold == pytest.approx(1.0, abs=0.15)
    assert made.accuracy > 0.85
    with pytest.raises(ValueError, match="both kinds"):
        learn(np.ones(50), np.ones(50, dtype=bool))


def test_positions_are_those_of_the_network_fed_with_right_derivations() -> None:
    problems = list(islice(questions("calibration"), 5))
    bits, first = positions(Engine(packaged("embedded.onnx"), width=2), problems)
    network, tokenizer = load(CHECKPOINT), build()
    wanted: list[float] = []
    ranked: list[bool] = []
    for question in problems:
        pieces = reference(question)
        assert [text for text, mine in pieces if mine][-1].endswith(f"Answer: {question.answer}<|end|>")
        encoded = [(tokenizer.encode(text).ids, mine) for text, mine in pieces]
        ids = [token for piece, _ in encoded for token in piece]
        mask = np.array([mine for piece, mine in encoded for _ in piece][1:])
        with torch.no_grad():
            logits = network(torch.tensor([ids])).logits[0, :-1].double()
        wanted += token_entropy(torch.log_softmax(logits, dim=-1).numpy(), tail="full")[mask].tolist()
        ranked += (logits.argmax(dim=-1).numpy() == np.array(ids[1:]))[mask].tolist()
    assert len(bits) == len(wanted)
    assert sorted(bits.tolist()) == pytest.approx(sorted(wanted), abs=1e-3)
    assert int(first.sum()) == sum(ranked)


def test_ramps_learn_on_a_backbone_that_stays_as_it_is() -> None:
    network = load(CHECKPOINT)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    ids, mask = next(batches(Recipe(), Schedule(batch_tokens=600, seed=1_000), build()))
    states, logits = hidden_states(network, ids)

    def losses(ramps: OffRamps) -> list[float]:
        with torch.no_grad():
            return [float(loss_of(ramps, states, logits, ids, mask, how)) for how in ("labels", "backbone")]

    ramps = train(network, conversations(how := Training(tokens=8_000, batch_tokens=1_000, warm_up=2)), how)
    assert all(after < begun for after, begun in zip(losses(ramps), losses(OffRamps.like(network)), strict=True))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A checkpoint with a tokenizer of words, and texts of these words."""
    small().save_pretrained(tmp_path)
    words = {f"w{number}": number for number in range(50)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    lines = [json.dumps({"text": " ".join(f"w{(start + step) % 50}" for step in range(12))}) for start in range(40)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_a_foreign_model_without_texts_or_tasks_is_refused(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, option in ((offramps.main, "--texts"), (calm.main, "--tasks")):
        with pytest.raises(SystemExit) as refused:
            command(["--model", str(foreign)])
        assert refused.value.code == 2
        assert f"{option} FILE" in capsys.readouterr().err
    assert not (foreign / FILE).exists()


def test_a_foreign_model_learns_from_its_own_texts(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offramps.main(["--model", str(foreign), "--texts", str(foreign / "texts.jsonl"), "--tokens", "40000"])
    network = load(foreign)
    ids, mask = torch.arange(12)[None] % 50, torch.ones(1, 12, dtype=torch.bool)
    states, logits = hidden_states(network, ids)
    with torch.no_grad():
        losses = [
            float(loss_of(ramps, states, logits, ids, mask, "labels"))
            for ramps in (load_ramps(network, foreign), OffRamps.like(network))
        ]
    assert losses[0] < losses[1] - 1, losses
    assert capsys.readouterr().out.count("agrees with the whole network") == 4
