"""`transformers_stop`: arguments for `model.generate` that stop a thought and let its answer follow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from justenough.backends.transformers import texts
from justenough.calibration.calibration import Calibration, require_names
from justenough.errors import ModelMismatch
from justenough.gateway.plan import Report
from justenough.integrations.transformers.sequence import Sequence, Stopping, no_room, require_temperature, stopping
from justenough.signal.thought import ThoughtFormat

if TYPE_CHECKING:
    import transformers

_MODES: Final = ("greedy_search", "sample")
_END: Final = 64
"""Tokens of a prompt that are read to see whether it opens the thought."""


class TransformersStop(dict[str, object]):
    """The keyword arguments for one or more calls of `model.generate`."""

    def __init__(
        self,
        calibration: Calibration,
        tokenizer: transformers.PreTrainedTokenizerBase,
        *,
        models: tuple[str, ...] = (),
        thought: ThoughtFormat | None = None,
        streamer: transformers.TextStreamer | None = None,
    ) -> None:
        def encode(text: str) -> list[int]:
            return list(tokenizer(text, add_special_tokens=False)["input_ids"])

        require_names(models)
        texts(tokenizer)  # refuses what is not a fast tokenizer
        shared = stopping(calibration, thought=thought, chat_template=tokenizer.chat_template, encode=encode)
        self._calibration, self._tokenizer, self._models, self._streamer = calibration, tokenizer, models, streamer
        self._shared: Stopping = shared
        self.reports: list[Report] = []
        """The gateway's report on each sequence of the last call, with the decision on each step."""
        super().__init__(
            custom_generate=self._generate,
            streamer=streamer,
            # `generate` would not pass on an assistant. With this entry, Python refuses a second argument of this name.
            assistant_model=None,
            # Only `generate_batch` uses it, which ignores all other arguments here.
            continuous_batching_config=_Refused(),
        )

    def _generate(
        self,
        model: Any,
        input_ids: Any,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        continuous_batching_config: object = None,
        **model_kwargs: Any,
    ) -> object:
        """The decoding method: that of `transformers`, with the gate around its processors and criteria."""
        from justenough.integrations.transformers.watching import Batch

        self.reports = []
        self._check(model, generation_config)
        ends = frozenset(_ids(generation_config.eos_token_id))
        mask = model_kwargs.get("attention_mask")
        if mask is None or mask.shape != input_ids.shape:
            mask = input_ids.new_ones(input_ids.shape)
        # Padding on the right would hide the end of a prompt.
        rows = [self._sequence(ids[kept != 0].tolist(), ends) for ids, kept in zip(input_ids, mask, strict=True)]
        batch = Batch(rows, self._calibration.signal)
        sampled = model._sample(
            input_ids,
            logits_processor=batch.around(logits_processor),
            stopping_criteria=batch.watching(stopping_criteria),
            generation_config=generation_config,
            streamer=self._streamer,
            **model_kwargs,
        )
        self.reports = [row.report() for row in rows]
        return sampled

    def _check(self, model: Any, config: Any) -> None:
        """Refuse ways to generate that the gate cannot follow."""
        mode = config.get_generation_mode().value
        if mode not in _MODES:
            hint = "use greedy decoding or sampling: num_beams=1, no assistant, no prompt lookup"
            raise no_room(mode.replace("_", " "), hint=hint)
        if model.config.is_encoder_decoder:
            raise no_room("an encoder-decoder model", hint="use a causal language model")
        name = str(model.config.name_or_path or "")
        allowed = (self._calibration.model, *self._models)
        if name and not {name, Path(name).name, f"justenough-{Path(name).name}"} & {*allowed}:
            hint = f"if it is the same model, give models=({name!r},)"
            raise ModelMismatch(f"the calibration is for {self._calibration.model}, the model is {name}", hint=hint)
        require_temperature(self._calibration, _temperature(config))

    def _sequence(self, prompt: list[int], ends: frozenset[int]) -> Sequence:
        end = str(self._tokenizer.decode(prompt[-_END:]))
        return Sequence(self._shared, prompt=end, texts=texts(self._tokenizer), ends=ends)


def transformers_stop(
    calibration: Calibration,
    tokenizer: transformers.PreTrainedTokenizerBase,
    *,
    models: tuple[str, ...] = (),
    thought: ThoughtFormat | None = None,
    streamer: transformers.TextStreamer | None = None,
) -> TransformersStop:
    """Keyword arguments for `model.generate` that close a thought where the calibration allows it.

    The answer follows in the same sequence. Each sequence of a batch has a gate of its own; after the call, `reports`
    of the result tells what was done. The signal is measured on the raw logits, before all processors. Beam search,
    assisted generation and `generate_batch` are refused, because the gate could not follow them.

    `models` are further names of the calibrated model, `thought` is the format of its thought if the calibration does
    not have it; a `streamer` belongs here, not into the call. Raises `SignalMismatch`; the call itself raises
    `SignalMismatch` for another temperature, `ModelMismatch` and `InputError`.
    """
    return TransformersStop(calibration, tokenizer, models=models, thought=thought, streamer=streamer)


class _Refused:
    """Stands for the settings of continuous batching; raises as soon as they are read."""

    def __getattr__(self, name: str) -> NoReturn:
        raise no_room("continuous batching", hint="use model.generate, which may have a batch too")


def _temperature(config: Any) -> float:
    """The sampling temperature; 0 is greedy."""
    if not config.do_sample:
        return 0.0
    return 1.0 if config.temperature is None else float(config.temperature)


def _ids(value: Any) -> list[int]:
    """The ids of `eos_token_id`: none, one or several."""
    return [] if value is None else [value] if isinstance(value, int) else [int(each) for each in value]
