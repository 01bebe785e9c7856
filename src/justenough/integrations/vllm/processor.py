"""The logits processor of vLLM: one class for its runner V1 and for Model Runner V2.

V1 calls `update_state` and `apply(logits)`: row i belongs to the i-th request of the batch. V2 calls `add_request` and
`apply(logits, context)`: rows belong to slots, and draft tokens have rows of their own. Both become `Row`s here, and
everything else is the same. Rows of requests that are not gated are never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, cast

from justenough.errors import InputError, MissingExtra
from justenough.integrations.engine.closing import Closing, Decoder, ReasoningConfig
from justenough.integrations.engine.request import Params, admit, check_server, order_of
from justenough.integrations.engine.rows import Row, applied
from justenough.integrations.engine.track import TRACKS, Track

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    class _V1: ...

    class _V2: ...

else:
    try:
        from vllm.v1.sample.logits_processor.interface import LogitsProcessor as _V1
        from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as _V2
    except ModuleNotFoundError:
        # Without vLLM the class can be read and tested, and nothing can use it.
        _V1 = type("_V1", (), {})
        _V2 = type("_V2", (), {})


class _Update(Protocol):
    """V1: what has changed in the batch."""

    removed: Sequence[int]
    added: Sequence[tuple[int, Params, list[int] | None, list[int]]]
    moved: Sequence[tuple[int, int, object]]


class _OnDevice(Protocol):
    gpu: torch.Tensor


class _OnHost(Protocol):
    np: NDArray[np.int32]


class _Slots(Protocol):
    """V2: the requests of the runner, by slot."""

    all_token_ids: _OnDevice
    prompt_len: _OnHost


class _Context(Protocol):
    """V2: the rows of this call."""

    expanded_idx_mapping: torch.Tensor
    expanded_local_pos: torch.Tensor
    input_ids: torch.Tensor
    pos: torch.Tensor
    idx_mapping_np: NDArray[np.int32]


class VLLMProcessor(_V1, _V2):
    """Stops thoughts inside vLLM: `LLM(logits_processors=[justenough.VLLMProcessor])` or
    `vllm serve --logits-processors justenough:VLLMProcessor`.

    A request is gated only if its `extra_args` (over HTTP: `vllm_xargs`) contain `justenough`: 1 for the calibration
    that the environment variable JUSTENOUGH_CALIBRATION names, or the text of a calibration file.
    """

    @classmethod
    def validate_params(cls, sampling_params: object) -> None:
        """Check a new request; raises `ValueError`, which vLLM shows to the client, if it cannot be gated."""
        try:
            admit(cast("Params", sampling_params))
        except InputError as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error

    def __init__(self, vllm_config: object, second: object, third: object = None) -> None:
        """V1 passes the device and whether memory is pinned, V2 its slots.

        Raises `InputError` if the server cannot gate, `MissingExtra` without vLLM.
        """
        check_server()
        if getattr(getattr(vllm_config, "parallel_config", None), "enable_batch_sharded_sampling", None):
            raise InputError("batch-sharded sampling gives each rank other rows", hint="leave the option out")
        self._decoder: Decoder = _decoder(vllm_config)
        self._closing = Closing.of(
            cast("ReasoningConfig | None", getattr(vllm_config, "reasoning_config", None)), self._decoder
        )
        self._models = _names(vllm_config)
        self._slots = cast("_Slots", second) if third is None else None
        self._tracks: dict[int, Track] = {}
        """By row of the batch (V1) or by slot (V2)."""
        self._outputs: dict[int, list[int]] = {}
        """V1: the output tokens by row; vLLM appends to these lists."""

    def is_argmax_invariant(self) -> bool:
        """V1: whether greedy sampling may skip this processor."""
        return False

    def update_state(self, batch_update: object) -> None:
        """V1: the batch has changed; None if it has not."""
        if batch_update is None:
            return
        update = cast("_Update", batch_update)
        for index in update.removed:
            self._put(index, None, None)
        for index, params, prompt, output in update.added:
            track = self._track(params)
            if track is not None:
                track.begin(prompt or ())
            self._put(index, track, output)
        for one, other, direction in update.moved:
            moved = self._tracks.get(one), self._outputs.get(one)
            replaced = self._tracks.get(other), self._outputs.get(other)
            self._put(other, *moved)
            self._put(one, *(replaced if getattr(direction, "name", "") == "SWAP" else (None, None)))

    def add_request(self, req_idx: int, sampling_params: object) -> bool:
        """V2: a request enters this slot, also after preemption; returns whether it is gated."""
        track = self._track(cast("Params", sampling_params))
        self._put(req_idx, track, None)
        return track is not None

    def apply(self, logits: object, ctx: object = None) -> object:
        """Measure the rows of gated requests and force the end of a thought that the gate stops.

        `logits`: a tensor (rows, V); `ctx`: the rows' places, on V2.
        """
        if not self._tracks:
            return logits
        rows = self._rows() if ctx is None else self._rows_of(cast("_Context", ctx))
        return applied(cast("torch.Tensor", logits), rows)

    def _put(self, place: int, track: Track | None, output: list[int] | None) -> None:
        """Put a request in a row or slot, or none."""
        self._tracks.pop(place, None)
        self._outputs.pop(place, None)
        if track is not None:
            self._tracks[place] = track
            if output is not None:
                self._outputs[place] = output

    def _track(self, params: Params) -> Track | None:
        order = order_of(params)
        if order is None:
            return None
        track = TRACKS.get(order, self._closing, self._decoder)
        if order.calibration.model in self._models:
            return track
        track.notes["other_model"] = None
        return None

    def _rows(self) -> list[Row]:
        """V1: the rows, after their tracks have the new tokens."""
        rows: list[Row] = []
        for index, track in self._tracks.items():
            output = self._outputs[index]
            # -1 stands for a token that the device has not given back yet.
            certain = output.index(-1) if output and output[-1] == -1 else len(output)
            if certain < track.position:
                continue
            track.hear(output[track.position : certain], complete=certain == len(output))
            rows.append(Row(index, track, len(output)))
        return rows

    def _rows_of(self, ctx: _Context) -> list[Row]:
        """V2: the rows, after their tracks have the tokens before their first row."""
        if self._slots is None or not any(slot in self._tracks for slot in ctx.idx_mapping_np.tolist()):
            return []
        import torch

        # One transfer from the device for all of them.
        columns = (ctx.expanded_idx_mapping, ctx.expanded_local_pos, ctx.input_ids, ctx.pos)
        places = torch.stack([column.to(torch.int64) for column in columns]).tolist()
        rows: list[Row] = []
        for index, (slot, local, token, pos) in enumerate(zip(*places, strict=True)):
            track = self._tracks.get(slot)
            if track is None:
                continue
            prompt = int(self._slots.prompt_len.np[slot])
            position = pos + 1 - prompt
            if track.thought is None:
                track.begin(self._slots.all_token_ids.gpu[slot, :prompt].tolist())
            # Rows before the last prompt token, and those of tokens that a preempted request computes again.
            if position < track.position or position < 0:
                continue
            if local > 0:
                # -1 stands for a draft that is always rejected.
                rows += [Row(index, track, position, token)] if token >= 0 else []
                continue
            if position == track.position + 1:
                track.hear([token])
            elif position > track.position:
                track.hear(self._slots.all_token_ids.gpu[slot, prompt + track.position : pos + 1].tolist())
            rows.append(Row(index, track, position))
        return rows


def _names(vllm_config: object) -> frozenset[str]:
    """The names under which the model is known."""
    model = getattr(vllm_config, "model_config", None)
    served = getattr(model, "served_model_name", None) or ()
    return frozenset((getattr(model, "model", ""), *([served] if isinstance(served, str) else served)))


class _WithSpecial:
    """A tokenizer that shows special tokens. It remembers the texts of short sequences, which come again and again."""

    def __init__(self, tokenizer: Decoder) -> None:
        self._text = lru_cache(maxsize=1 << 16)(
            lambda ids: tokenizer.decode(list(ids), skip_special_tokens=False)  # type: ignore[call-arg]
        )

    def decode(self, ids: list[int], /) -> str:
        return self._text(tuple(ids))


def _decoder(vllm_config: object) -> Decoder:
    """The server's tokenizer."""
    try:
        from vllm.tokenizers import cached_tokenizer_from_config
    except ModuleNotFoundError as error:
        raise MissingExtra("vllm") from error
    return _WithSpecial(cached_tokenizer_from_config(getattr(vllm_config, "model_config", None)))
