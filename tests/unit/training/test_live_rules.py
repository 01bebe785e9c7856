"""What the rules with a live model learn: AdaDec's threshold, and off-ramps on a backbone that stays as it is."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from justenough.backends.layers.ramps import FOLDER, OffRamps
from justenough.backends.layers.training import Training, hidden_states, loss_of, train
from justenough.backends.look_ahead import learn
from justenough.errors import InputError
from justenough.signal.entropy import token_entropy
from justenough.toy.engine import Engine
from justenough.toy.families import questions
from justenough.toy.tokens import packaged
from tests.conftest import CHECKPOINT
from tests.unit.backends.layers.small import foreign
from training import calm, offramps
from training.adadec import positions, reference, spread
from training.data import Recipe
from training.offramps import conversations, load
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
    with pytest.raises(InputError, match="both kinds"):
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

    how_ = Training(tokens=8_000, batch_tokens=1_000, warm_up=2)
    ramps = train(network, OffRamps.like(network), conversations(how_), how_, lambda seen, loss: None)
    assert all(after < begun for after, begun in zip(losses(ramps), losses(OffRamps.like(network)), strict=True))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_foreign_model_is_sent_to_the_command_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign(tmp_path)
    for command, option in ((offramps.main, "exits train --texts"), (calm.main, "exits certify --tasks")):
        with pytest.raises(SystemExit) as refused:
            command(["--model", str(tmp_path)])
        assert refused.value.code == 2
        assert f"{option} FILE" in capsys.readouterr().err
    assert not (tmp_path / FOLDER).exists()


def test_the_spread_is_that_of_the_thresholds_over_splits() -> None:
    rng = np.random.default_rng(0)
    bits = rng.exponential(1.0, 400)
    first = rng.random(400) > bits / 4
    thresholds = [learn(bits, first, seed=seed).threshold for seed in range(12)]
    low, middle, high = np.quantile(thresholds, (0.05, 0.5, 0.95))
    assert len(set(thresholds)) > 1
    assert spread(bits, first, splits=12).startswith(f"{middle:.4f} bits [{low:.4f}, {high:.4f}]")
