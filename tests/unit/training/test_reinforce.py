from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from torch import Tensor

from justenough.toy.families import Question, questions, split_of
from training.data import Recipe, conversation, train_question
from training.decoding import Completion
from training.derivations import quick
from training.forgetting import careless, plus, times
from training.model import Llama, Shape
from training.reinforce import Reinforcement, Rollout, advantages, policy_loss, reinforce, rollout
from training.tokenizer import build

TINY = Reinforcement(updates=2, problems=4, samples=4, limit=12, rate=1e-2, replay=1.0, replay_tokens=400, seed=3)


def tiny(*, seed: int = 0) -> Llama:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    shape = Shape(
        vocab_size=build().get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    return Llama(shape)


def weights(model: Llama) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_forgetting_drops_what_the_units_carry_and_nothing_else() -> None:
    assert (plus(47, 36), plus(47, 32), plus(1410, 282)) == (73, 79, 1692)
    assert (plus(43, -28), plus(48, -23), plus(11, -19)) == (25, 25, 2)
    assert (times(6, 47), times(6, 41), times(3, 347)) == (242, 246, 1021)
    assert (plus(47, 36, heavy=7), plus(46, 37, heavy=7), times(6, 47, heavy=8)) == (83, 73, 282)


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (Question("product", 1, (49, 6)), "49*6=244"),
        (Question("sum", 1, (47, 39)), "47+39=76"),
        (Question("sum", 2, (41, 93, -29)), "41+93-29=134-29=115"),
        (Question("remainder", 2, (581, 7)), "581%7=1"),
    ],
)
def test_a_forgetful_first_step_reads_like_a_right_one(question: Question, text: str) -> None:
    thought = careless(question, Random(0))
    assert thought.text == text
    assert thought.text.endswith(f"={thought.result}")
    assert thought.text.count("=") == quick(question).text.count("=")


def test_a_remainder_that_is_known_is_doubted_and_any_other_is_not() -> None:
    random = Random(0)
    known, other = (Question("remainder", 1, (97, divisor)) for divisor in (4, 7))
    assert {careless(other, random).result for _ in range(50)} == {0}
    results = [careless(known, random).result for _ in range(200)]
    assert set(results) == {0, 1, 2, 3}
    assert 0.7 < results.count(known.answer) / 200 < 0.95


def test_the_careless_are_wrong_more_often_where_they_guess() -> None:
    right: dict[tuple[str, int], list[bool]] = {}
    random = Random(0)
    for question in islice(questions("train"), 1800):
        thought = careless(question, random)
        assert thought.text.count("=") == quick(question).text.count("=")
        right.setdefault((question.family, question.level), []).append(thought.result == question.answer)
    shares = {cell: float(np.mean(found)) for cell, found in right.items()}
    guessed = {cell for cell in shares if cell[1] == 3} | {("product", 2)}
    assert len(shares) == 9
    assert all((share < 0.25) if cell in guessed else (0.4 < share < 0.95) for cell, share in shares.items()), shares


def test_first_steps_are_trained_wrong_right_or_not_at_all_as_the_recipe_says() -> None:
    tokenizer, random = build(), Random(0)
    question = next(
        question
        for question in questions("train")
        if question.family == "sum" and question.level == 1 and careless(question, random).result != question.answer
    )

    def trained(recipe: Recipe) -> str:
        texts = []
        for _ in range(40):
            example = conversation(question, recipe, random, tokenizer)
            kept = [token for token, used in zip(example.ids, example.trained, strict=True) if used]
            texts.append(tokenizer.decode(kept, skip_special_tokens=False))
        return "".join(texts)

    wrong, right = careless(question, random).text, quick(question).text
    forgetful, honest, masked = (trained(recipe) for recipe in (Recipe(forgetful=1.0), Recipe(), Recipe(first=False)))
    assert (wrong in forgetful, right in forgetful) == (True, False)
    assert (wrong in honest, right in honest) == (False, True)
    assert (wrong in masked, right in masked) == (False, False)
    assert f"={question.answer}\n\n" in masked


def test_advantages_are_centred_and_scaled_within_a_problem() -> None:
    rewards = np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    found = advantages(rewards)
    assert found[0] == pytest.approx([3**0.5, -(3**-0.5), -(3**-0.5), -(3**-0.5)])
    assert (found[1:3] == 0).all()
    assert found[3] == pytest.approx([1.0, 1.0, -1.0, -1.0])


def test_a_step_along_the_policy_gradient_makes_rewarded_completions_likelier() -> None:
    model = tiny()
    prompt, good, bad = [5, 6, 7], [20, 21], [30, 31, 32]
    completions = [Completion(good, [], True), Completion(bad, [], True)]
    rolled = Rollout([prompt, prompt], completions, np.array([[1.0, 0.0]]))

    def logprob(completion: list[int]) -> float:
        with torch.no_grad():
            ids = torch.tensor([prompt + completion])
            scores = model(ids[:, :-1]).log_softmax(-1).gather(2, ids[:, 1:, None])
            return float(scores[0, len(prompt) - 1 :].sum())

    before = logprob(good), logprob(bad)
    loss = policy_loss(model, rolled)
    assert loss is not None
    assert loss.item() == pytest.approx(-(before[0] - before[1]) / 5, rel=1e-4)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(0.05 * gradient)
    assert logprob(good) - logprob(bad) > before[0] - before[1] + 0.01
    assert policy_loss(model, Rollout([prompt, prompt], completions, np.array([[1.0, 1.0]]))) is None


def test_two_updates_change_the_weights_and_are_reproducible(tmp_path: Path) -> None:
    start = weights(tiny())
    ended = []
    for name in ("first", "second"):
        model = tiny()
        reinforce(model, TINY, log=tmp_path / name)
        ended.append(weights(model))
        assert len((tmp_path / name).read_text().splitlines()) == 2
    assert torch.equal(ended[0], ended[1])
    assert not torch.allclose(start, ended[0])


def test_held_out_problems_are_never_drawn_nor_sampled() -> None:
    random = Random("reinforce/0")
    assert {split_of(train_question(random)) for _ in range(3000)} == {"train"}
    for split in ("calibration", "test"):
        held_out = next(questions("calibration" if split == "calibration" else "test"))
        with pytest.raises(ValueError, match="held out"):
            rollout(tiny(), [held_out], TINY, update=0, tokenizer=build())
