"""Several sequences of one network in Hugging Face form, decoded together: each row has its own length. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from justenough.backends.batched import Decoder, Sample, Slot

_ROOM: Final = 256
"""Positions for which there is room at first."""


class Choice(NamedTuple):
    """The prediction at one position."""

    logprobs: Tensor
    """Natural log-probabilities of the next token (V,), in double precision."""
    layers: int | None = None
    """Number of layers that ran, if tokens may exit early."""


class NetworkDecoder(Decoder):
    """Reads each prompt in one pass, and then feeds one token to all busy rows together."""

    def __init__(
        self,
        read: Callable[[int, list[int]], Choice],
        feed: Callable[[list[int], list[int]], Sequence[Choice]],
        *,
        rows: int,
        vocabulary: int,
        positions: int,
        ends: tuple[int, ...] = (),
        copy: Callable[[int, int, int], None] | None = None,
    ) -> None:
        """`read` replaces the content of a row; `feed` takes rows and their next ids.

        `ends` are all ids that end a sequence. A sample has the first of them in place of any other. `copy` copies the
        first positions of a row to another.
        """
        super().__init__(rows=rows, vocabulary=vocabulary, positions=positions)
        self._read, self._feed, self._ends, self._copy = read, feed, ends, copy
        self._last: dict[int, Tensor] = {}

    def release(self, slot: Slot) -> None:
        """Free a row. It forgets its content, so that a sequence that runs alone always has the same bits."""
        super().release(slot)
        slot.cached = []

    def step(self) -> list[tuple[Slot, Sample]]:
        """Read the prompts of new rows and feed one token to each other busy row; return the samples of all of them."""
        busy = [slot for slot in self.slots if slot.busy]
        going = [slot for slot in busy if slot.cached]
        choices = {slot: self._read(slot.row, slot.waiting) for slot in busy if not slot.cached}
        if going:
            fed = self._feed([slot.row for slot in going], [slot.waiting[0] for slot in going])
            choices |= dict(zip(going, fed, strict=True))
        for slot in busy:
            slot.cached += slot.waiting
            slot.waiting = []
        if not busy:
            return []
        self._last |= {slot.row: choices[slot].logprobs for slot in busy}
        samples = self.sampled(busy, np.stack([choices[slot].logprobs.numpy() for slot in busy]))
        return [
            (slot, sample._replace(token_id=self._named(sample.token_id), layers=choices[slot].layers))
            for slot, sample in zip(busy, samples, strict=True)
        ]

    def _named(self, token_id: int) -> int:
        return self._ends[0] if token_id in self._ends else token_id

    def copy(self, source: Slot, target: Slot, positions: slice) -> None:
        """Copy the content of a row to another."""
        if self._copy is None:
            raise NotImplementedError("rows with early exits are never copied")
        self._copy(source.row, target.row, positions.stop)

    def logits(self, slot: Slot) -> NDArray[np.float32]:
        """The natural log-probabilities (V,) that the last step computed for a row; they are logits, too."""
        return self._last[slot.row].float().numpy()


class CachedRows:
    """A causal network with a cache of several rows.

    A row that is fed alone has the bits of the library's own cache. Rows that are fed together have matrices of other
    shapes, and so another rounding. A network whose state is not only keys and values is fed row by row.
    """

    def __init__(self, network: Any, *, rows: int) -> None:
        config = network.config.get_text_config(decoder=True)
        kinds = {*(getattr(config, "layer_types", None) or ("full_attention",))}
        own = DynamicCache(config=config).layers
        plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in own)
        self._network, self._device = network, network.device
        self._together = plain and kinds <= {"full_attention", "sliding_attention"}
        self._windows = {getattr(layer, "sliding_window", None) for layer in own}
        self._lengths = [0] * rows
        self._own: dict[int, Any] = {}
        """The library's cache of each row, if rows cannot be fed together."""
        self._place = _Place(self._device)
        self._cache = Cache(layers=[_Rows(rows, self._place) for _ in own])

    @torch.no_grad()
    def read(self, row: int, ids: list[int]) -> Choice:
        """Replace the content of a row with a prompt."""
        self._place.one(row, len(ids))
        cache = self._cache if self._together else None
        out = self._network(self._tensor([ids]), past_key_values=cache, use_cache=True, **self._last())
        self._own[row] = None if self._together else out.past_key_values
        self._lengths[row] = len(ids)
        return _choices(out)[0]

    @torch.no_grad()
    def feed(self, rows: list[int], ids: list[int]) -> list[Choice]:
        """Feed one token to each of some rows."""
        if not self._together:
            return [self._alone(row, token_id) for row, token_id in zip(rows, ids, strict=True)]
        places = self._tensor([self._lengths[row] for row in rows])
        self._place.several(self._tensor(rows), places)
        out = self._network(
            self._tensor(ids)[:, None],
            attention_mask=None if len(rows) == 1 else self._mask(places),
            position_ids=places[:, None],
            past_key_values=self._cache,
            use_cache=True,
        )
        for row in rows:
            self._lengths[row] += 1
        return _choices(out)

    def copy(self, source: int, target: int, positions: int) -> None:
        """Copy the first positions of a row to another; a row that is fed alone is copied whole."""
        if not self._together:
            self._own[target] = deepcopy(self._own[source])
        for layer in self._cache.layers:
            if layer.is_initialized:
                for part in (layer.keys, layer.values):
                    part[target, :, :positions] = part[source, :, :positions]
        self._lengths[target] = positions

    def _tensor(self, values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(values, device=self._device)

    def _alone(self, row: int, token_id: int) -> Choice:
        out = self._network(self._tensor([[token_id]]), past_key_values=self._own[row], use_cache=True)
        return _choices(out)[0]

    def _mask(self, places: Tensor) -> Tensor | dict[str, Tensor]:
        """What each row attends to, (B, 1, 1, L), to add to the scores; one mask for each kind of layer."""
        masks: dict[str, Tensor] = {}
        for window in self._windows:
            at = torch.arange(int(places.max()) + 1, device=self._device)
            hidden = at > places[:, None]
            if window is not None:
                hidden |= at <= places[:, None] - window
            dtype = self._network.dtype
            mask = torch.zeros_like(hidden, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)
            masks["full_attention" if window is None else "sliding_attention"] = mask[:, None, None]
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _last(self) -> dict[str, int]:
        """The option that computes only the logits of the last position."""
        return {"logits_to_keep": 1} if self._network._supports_logits_to_keep() else {}


def _choices(out: Any) -> list[Choice]:
    return [Choice(row) for row in torch.log_softmax(out.logits[:, -1].double(), dim=-1).cpu()]


class _Place:
    """Where the keys and values of the current call belong."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def one(self, row: int, length: int) -> None:
        """A whole prompt in one row."""
        self.rows, self.places = torch.tensor([row], device=self._device), None
        self.longest, self.before = length, 0

    def several(self, rows: Tensor, places: Tensor) -> None:
        """One token in each row."""
        self.longest = int(places.max()) + 1
        self.rows, self.places, self.before = rows, places, self.longest - 1

    rows: Tensor
    places: Tensor | None
    longest: int = 0
    before: int = 0
    """Positions before the call."""


class _Rows(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer: (rows, heads, positions, head size)."""

    is_sliding = False

    def __init__(self, rows: int, place: _Place) -> None:
        super().__init__()
        self._count, self._place = rows, place

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = (
            part.new_zeros(self._count, part.shape[1], _ROOM, part.shape[3]) for part in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the keys and values of the call; return all that its rows may attend to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        place = self._place
        if (lacking := place.longest - self.keys.shape[2]) > 0:
            more = max(lacking, self.keys.shape[2])
            self.keys, self.values = (
                torch.nn.functional.pad(part, (0, 0, 0, more)) for part in (self.keys, self.values)
            )
        if place.places is None:
            self.keys[place.rows, :, : place.longest] = key_states
            self.values[place.rows, :, : place.longest] = value_states
            return key_states, value_states
        self.keys[place.rows, :, place.places] = key_states[:, :, 0]
        self.values[place.rows, :, place.places] = value_states[:, :, 0]
        return self.keys[place.rows, :, : place.longest], self.values[place.rows, :, : place.longest]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._place.longest, 0

    def get_seq_length(self) -> int:
        return self._place.before

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length
    """Its name in older versions."""
