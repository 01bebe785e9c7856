"""A custom logit processor for SGLang, with the gate of the vLLM plugin. Serving is not verified; the protocol is.

Requests send `custom_logit_processor=SGLangProcessor.to_str()` and `custom_params={"justenough": TEXT}`. The server
needs `--enable-custom-logit-processor --disable-overlap-schedule` and this package. With overlapping schedules the
output tokens come later than the logits: then nothing is gated.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final, Protocol, cast

from justenough.errors import InputError
from justenough.integrations.engine.closing import Closing, Decoder
from justenough.integrations.engine.request import admit, order_of, wants_gate
from justenough.integrations.engine.rows import Row, applied
from justenough.integrations.engine.track import Track
from justenough.prompts import GENERAL

if TYPE_CHECKING:
    import torch

    class _Base: ...

else:
    try:
        from sglang.srt.sampling.custom_logit_processor import CustomLogitProcessor as _Base
    except ModuleNotFoundError:
        # Without SGLang the class can be read and tested, and nothing can use it.
        _Base = object

log: Final = logging.getLogger("justenough.sglang")

_STATE: Final = "justenough_state"
"""Key of a request's own parameters. SGLang makes processors anew; these parameters live as long as the request."""


class _Tokenizer(Decoder, Protocol):
    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


class _Request(Protocol):
    """The part of SGLang's `Req` that is needed."""

    origin_input_ids: Sequence[int]
    output_ids: Sequence[int]
    tokenizer: _Tokenizer | None
    sampling_params: object


class _State:
    """A request that asks for the gate."""

    def __init__(self, track: Track | None) -> None:
        self.track = track
        """None: the request is not gated."""
        self.calls = 0
        self.lags = False


class SGLangProcessor(_Base):
    """Stops the thoughts of requests that ask for it."""

    def __call__(self, logits: torch.Tensor, custom_param_list: list[dict[str, object]] | None = None) -> torch.Tensor:
        """Measure and change the rows of gated requests; row i belongs to the i-th parameters."""
        rows: list[Row] = []
        for number, params in enumerate(custom_param_list or ()):
            if not params or "__req__" not in params or not wants_gate(params):
                continue
            request = cast("_Request", params["__req__"])
            # The client may have sent something under this name.
            if not isinstance(state := params.get(_STATE), _State):
                params[_STATE] = state = _State(_track_of(params, request))
            if state.track is not None and _hears(state, state.track, request):
                rows.append(Row(number, state.track, len(request.output_ids)))
        return applied(logits, rows) if rows else logits


def _hears(state: _State, track: Track, request: _Request) -> bool:
    """Give a request's new tokens to its track; returns whether its row predicts the token after them."""
    count = len(request.output_ids)
    # Each call samples a token. So if there is no new token since the last call, the tokens come later than the calls.
    if state.calls and count <= track.position and not state.lags:
        state.lags = True
        log.warning("output tokens lag behind the logits, so nothing is gated: --disable-overlap-schedule")
    state.calls += 1
    if not state.lags:
        track.hear(list(request.output_ids[track.position :]))
    return not state.lags


def _track_of(params: dict[str, object], request: _Request) -> Track | None:
    """The track of a new request; None if it is not to be gated, or cannot be."""
    sampling = request.sampling_params
    penalties = {name: getattr(sampling, name, None) for name in ("repetition_penalty", "logit_bias")}
    penalties |= {name: getattr(sampling, name, 0.0) for name in ("presence_penalty", "frequency_penalty")}
    # SGLang writes a temperature of 0 as the most likely token at temperature 1.
    greedy = getattr(sampling, "top_k", None) == 1
    vllm_params = SimpleNamespace(
        n=1,
        temperature=0.0 if greedy else getattr(sampling, "temperature", 1.0),
        min_tokens=getattr(sampling, "min_new_tokens", 0),
        extra_args={name: value for name, value in params.items() if name.startswith("justenough")},
        **penalties,
    )
    try:
        admit(vllm_params)
        order = order_of(vllm_params)
        if order is None:
            return None
        if request.tokenizer is None:
            raise InputError("the server has no tokenizer", hint="leave out --skip-tokenizer-init")
        prompts = order.calibration.prompts or GENERAL
        closing = closing_of(prompts.thought.tags, prompts.close, request.tokenizer)
    except InputError as error:
        log.warning("a request is not gated: %s", error)
        return None
    track = Track(order, closing, request.tokenizer)
    track.begin(request.origin_input_ids)
    return track


def closing_of(tags: tuple[str, str], close: str, tokenizer: _Tokenizer) -> Closing:
    """The tokens around a thought, from the texts of the calibration's prompts, because SGLang does not state them."""
    start, natural, end = (tokenizer.encode(text, add_special_tokens=False) for text in (*tags, close))
    config = SimpleNamespace(
        reasoning_start_token_ids=start, reasoning_end_token_ids=end, natural_reasoning_end_token_ids=natural
    )
    return Closing.of(config, tokenizer)
