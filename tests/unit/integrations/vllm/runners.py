"""A small model, and the batch protocols of vLLM's two runners around it, without vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from justenough.integrations.engine.track import TRACKS
from justenough.integrations.vllm import processor as module
from justenough.integrations.vllm.processor import VLLMProcessor

WORDS = ("<think>", "</think>", "a", " b", "c", "\n\n", "42", "<end>", "So", " now", ".", "é")
OPEN, CLOSE, BREAK, END = WORDS.index("<think>"), WORDS.index("</think>"), WORDS.index("\n\n"), WORDS.index("<end>")
ANSWER = (WORDS.index("42"), END)
MODEL = "mock"
STEP = (2, 3, 4, 2, 3)


class Words:
    """A tokenizer with one word for each token."""

    def decode(self, ids: Sequence[int], /) -> str:
        assert min(ids) >= 0
        return "".join(WORDS[id] for id in ids)


@dataclass
class Params:
    extra_args: dict[str, Any] | None = None
    n: int = 1
    temperature: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    min_tokens: int = 0
    logit_bias: dict[int, float] | None = None


def config(*, model: str = MODEL, end: Sequence[int] = (CLOSE,), **parallel: object) -> SimpleNamespace:
    reasoning = SimpleNamespace(
        reasoning_start_token_ids=[OPEN],
        reasoning_end_token_ids=list(end),
        natural_reasoning_end_token_ids=[CLOSE],
    )
    return SimpleNamespace(
        reasoning_config=reasoning,
        parallel_config=SimpleNamespace(**parallel),
        model_config=SimpleNamespace(served_model_name=[model], model="path/of/model"),
    )


@dataclass
class Talk:
    """A request: what the model would say, and how sure it is in each step of its thought."""

    sure: tuple[bool, ...]
    """For each step; the thought ends after the last one."""
    args: dict[str, Any] | None = None
    prompt: tuple[int, ...] = (2, 2)
    again: bool = False
    """Whether the model wants to close the thought again in its answer."""
    output: list[int] = field(default_factory=list)
    logits: dict[int, torch.Tensor] = field(default_factory=dict)
    """The raw logits by output position."""
    seen: dict[int, torch.Tensor] = field(default_factory=dict)
    """The logits after the processor, by output position."""
    params: Params = field(default_factory=Params)

    def __post_init__(self) -> None:
        self.params = Params(extra_args=self.args)

    @property
    def script(self) -> list[int]:
        opened = OPEN in self.prompt
        thought = [token for _ in self.sure for token in (*STEP, BREAK)]
        return [*(() if opened else (OPEN,)), *thought, CLOSE, *ANSWER]

    def raw(self, position: int, before: Sequence[int]) -> torch.Tensor:
        """The model's logits at an output position after these output tokens."""
        script = self.script
        if CLOSE in before:
            said = position - max(at for at, token in enumerate(before) if token == CLOSE) - 1
            closes = self.again and said == 0 and list(before).count(CLOSE) == 1
            wanted = CLOSE if closes else ANSWER[min(said, len(ANSWER) - 1)]
        else:
            wanted = script[min(position, len(script) - 1)]
        step = max(0, position - (OPEN not in self.prompt)) // (len(STEP) + 1)
        noise = torch.randn(len(WORDS), generator=torch.Generator().manual_seed(hash((position, *before))))
        noise[wanted] = 4.0 + (9.0 if step >= len(self.sure) or self.sure[step] else 0.0)
        if self.again and wanted == CLOSE:
            noise[ANSWER[0]] = 3.5
        return noise

    @property
    def ended(self) -> bool:
        return bool(self.output) and self.output[-1] == END

    @property
    def text(self) -> str:
        return Words().decode(self.output)

    @property
    def report(self) -> dict[str, Any]:
        report = TRACKS.report(str((self.params.extra_args or {})["justenough_id"]))
        assert report is not None
        return report


class Direction(Enum):
    UNIDIRECTIONAL = auto()
    SWAP = auto()


class RunnerV1:
    """A persistent batch: requests come, leave, move, and are preempted."""

    def __init__(self, **settings: Any) -> None:
        self.processor = VLLMProcessor(config(**settings), torch.device("cpu"), False)
        self.batch: list[Talk] = []
        self._added: list[Talk] = []
        self._removed: list[int] = []
        self._moved: list[tuple[int, int, Direction]] = []

    def add(self, talk: Talk) -> None:
        VLLMProcessor.validate_params(talk.params)
        self.again(talk)

    def again(self, talk: Talk) -> None:
        """Add a request that was preempted."""
        self._added.append(talk)

    def leave(self, talk: Talk) -> None:
        """A request ends, or is preempted; the last one of the batch takes its place."""
        at, last = self.batch.index(talk), len(self.batch) - 1
        self._removed.append(at)
        if at != last:
            self.batch[at] = self.batch[last]
            self._moved.append((last, at, Direction.UNIDIRECTIONAL))
        self.batch.pop()

    def swap(self, one: int, other: int) -> None:
        self.batch[one], self.batch[other] = self.batch[other], self.batch[one]
        self._moved.append((one, other, Direction.SWAP))

    def update(self) -> None:
        added = []
        # The batch has been condensed before: its places are those after the moves.
        moved, removed = self._moved, self._removed
        if moved or removed:
            self.processor.update_state(SimpleNamespace(removed=removed, added=[], moved=moved))
        for talk in self._added:
            self.batch.append(talk)
            talk.output = list(talk.output)
            added.append((len(self.batch) - 1, talk.params, list(talk.prompt), talk.output))
        self._added, self._removed, self._moved = [], [], []
        self.processor.update_state(SimpleNamespace(removed=[], added=added, moved=[]) if added else None)

    def step(self) -> None:
        """One token for each request."""
        self.update()
        raw = [talk.raw(len(talk.output), talk.output) for talk in self.batch]
        logits = self.processor.apply(torch.stack(raw))
        assert isinstance(logits, torch.Tensor)
        for talk, before, row in zip(list(self.batch), raw, logits, strict=True):
            position = len(talk.output)
            talk.logits[position], talk.seen[position] = before, row.clone()
            talk.output.append(int(row.argmax()))
            if talk.ended:
                self.leave(talk)


class RunnerV2:
    """Slots from a free list, rows in any order, draft tokens, and prompts in pieces."""

    def __init__(self, *, drafts: int = 0, calls: int = 1, slots: int = 4, **settings: Any) -> None:
        self.tokens = torch.zeros(slots, 256, dtype=torch.int32)
        self.prompt_len = np.zeros(slots, dtype=np.int32)
        states = SimpleNamespace(
            all_token_ids=SimpleNamespace(gpu=self.tokens), prompt_len=SimpleNamespace(np=self.prompt_len)
        )
        self.processor = VLLMProcessor(config(**settings), states)
        self.slots: dict[int, Talk] = {}
        self.free = list(range(slots))
        self._drafts, self._calls = drafts, calls
        self.drafted = self.accepted = 0

    def add(self, talk: Talk) -> None:
        VLLMProcessor.validate_params(talk.params)
        self.again(talk)

    def again(self, talk: Talk) -> None:
        slot = self.free.pop()
        self.slots[slot] = talk
        known = [*talk.prompt, *talk.output]
        self.prompt_len[slot] = len(talk.prompt)
        self.tokens[slot] = 0
        self.processor.add_request(slot, talk.params)
        self.tokens[slot, : len(known)] = torch.tensor(known)
        if len(known) > 1:
            # A piece of the prompt first: its row of logits is thrown away.
            self._apply([(slot, 0, known[0], 0, torch.randn(len(WORDS)))])

    def leave(self, talk: Talk) -> None:
        slot = next(slot for slot, one in self.slots.items() if one is talk)
        del self.slots[slot]
        self.free.insert(0, slot)

    def _apply(self, rows: list[tuple[int, int, int, int, torch.Tensor]]) -> torch.Tensor:
        slots, local, ids, pos = (torch.tensor([row[column] for row in rows]) for column in range(4))
        context = SimpleNamespace(
            expanded_idx_mapping=slots.int(),
            expanded_local_pos=local.int(),
            input_ids=ids.int(),
            pos=pos,
            idx_mapping_np=np.array(list(dict.fromkeys(slots.tolist())), dtype=np.int32),
        )
        for _ in range(self._calls):
            logits = self.processor.apply(torch.stack([row[4] for row in rows]), context)
        assert isinstance(logits, torch.Tensor)
        return logits

    def step(self) -> None:
        """One token for each request and what is accepted of its drafts."""
        rows: list[tuple[int, int, int, int, torch.Tensor]] = []
        for slot, talk in reversed(list(self.slots.items())):
            known = [*talk.prompt, *talk.output]
            for local, token in enumerate([known[-1], *self._guesses(talk)]):
                known += [token] if local else []
                before = known[len(talk.prompt) :]
                row = talk.raw(len(before), before)
                rows.append((slot, local, token, len(known) - 1, row))
        logits = self._apply(rows)
        rejected: set[int] = set()
        for number, (slot, local, _, _, raw) in enumerate(rows):
            if slot not in self.slots or (slot in rejected and local):
                continue
            talk = self.slots[slot]
            position, token = len(talk.output), int(logits[number].argmax())
            talk.logits[position], talk.seen[position] = raw, logits[number].clone()
            talk.output.append(token)
            self.tokens[slot, len(talk.prompt) + position] = token
            following = rows[number + 1] if number + 1 < len(rows) else None
            if following is not None and following[0] == slot:
                self.drafted += 1
                self.accepted += following[2] == token
                if following[2] != token:
                    rejected.add(slot)
            if talk.ended:
                self.leave(talk)

    def _guesses(self, talk: Talk) -> list[int]:
        """Draft tokens; every seventh is wrong, and those of the first step are placeholders, as in vLLM."""
        at = len(talk.output)
        if at == 0:
            return [-1] * self._drafts
        guessed = talk.script[at : at + self._drafts]
        return [2 if (at + number) % 7 == 6 else token for number, token in enumerate(guessed)]


def run(runner: RunnerV1 | RunnerV2, *talks: Talk) -> None:
    """Run requests together to their ends."""
    for talk in talks:
        runner.add(talk)
    for _ in range(200):
        if all(talk.ended for talk in talks):
            return
        runner.step()
    raise AssertionError([talk.text for talk in talks])


def use_words(monkeypatch: Any) -> None:
    """Let the processor use the words above instead of vLLM's tokenizer."""
    monkeypatch.setattr(module, "_decoder", lambda _: Words())
