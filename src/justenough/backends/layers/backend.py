"""A checkpoint in Hugging Face form with early exits: `hf:FOLDER` with `--exits`, `calm:` and `deebert:`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cached_property
from pathlib import Path

from justenough.backends.batched import Decoder
from justenough.backends.layers.certificate import Risk, Scope, certified, tokenizer_digest
from justenough.backends.layers.leaving import EarlyClassifier, Leaving, parse_leave, rule_of
from justenough.backends.protocol import Finish, Request
from justenough.backends.registry import Options, split_number
from justenough.backends.transformers import Loading, TransformersBackend
from justenough.errors import InputError
from justenough.trace import Token


class LayerExitBackend(TransformersBackend):
    """Each generated token exits the network at the first confident layer; a prompt runs through all layers.

    The name of the model contains the rule, because a calibration on early exits is not valid for the whole network,
    and the reverse. `Token.layers` is the number of layers that ran for a token. With `leaving` None, all tokens run
    through the whole network as with `hf:`, for comparison. A request outside `scope` is refused.
    """

    def __init__(
        self,
        path: Path,
        leaving: Leaving | None,
        *,
        exits: Path | None = None,
        scope: Scope | None = None,
        concurrency: int = 16,
        prompts: str | None = None,
        thought: str | None = None,
        threads: int | None = None,
        loading: Loading | None = None,
    ) -> None:
        """`exits` is the folder of the exits; by default `offramps` in that of the checkpoint."""
        super().__init__(
            path, concurrency=concurrency, prompts=prompts, thought=thought, threads=threads, loading=loading
        )
        from justenough.backends.layers.network import LayeredNetwork
        from justenough.backends.layers.ramps import FOLDER, check_kind, load_ramps, network_digest, weights_digest

        network, exits = self.checkpoint.network, exits or path / FOLDER
        check_kind(network, path)
        ramps = load_ramps(network, exits)
        self._tokenizer, self._weights = tokenizer_digest(path), weights_digest(exits)
        self._layers = ramps.settings.layers
        self._dtype = str(network.dtype).removeprefix("torch.")
        if ramps.settings.tokenizer != self._tokenizer:
            raise InputError(f"{exits} belongs to another tokenizer", hint="train exits for this checkpoint")
        if ramps.settings.network not in ("", network_digest(path)):
            raise InputError(f"{exits} belongs to another model", hint="train exits for this checkpoint")
        if scope is not None:
            scope.check_model(tokenizer=self._tokenizer, exits=self._weights, layers=self._layers, dtype=self._dtype)
        self._name, self.exits = self.model, exits
        self.layered = LayeredNetwork(network, ramps, rows=concurrency)
        self.scope = scope
        self.use(leaving)

    def use(self, leaving: Leaving | None) -> None:
        """Change the rule; raises `InputError` if the exits lack what it needs."""
        ramps = self.layered.ramps
        if isinstance(leaving, EarlyClassifier) and ramps is not None and not ramps.settings.classifier:
            raise InputError("these exits have no early classifier", hint="train them by justenough exits train")
        self.leaving = leaving
        self.model = self._name if leaving is None else f"{self._name}/{leaving.name}"

    def scope_of(self, *, task: str, temperature: float, steps: int, max_tokens: int, risk: Risk) -> Scope:
        """The scope of a certificate for this checkpoint and its exits."""
        return Scope(
            task=task,
            temperature=temperature,
            steps=steps,
            max_tokens=max_tokens,
            prompt=self.prompts.ask,
            tokenizer=self._tokenizer,
            exits=self._weights,
            layers=self._layers,
            dtype=self._dtype,
            risk=risk,
        )

    @cached_property
    def engine(self) -> Decoder:
        """The decoder, loaded at the first use."""
        from justenough.backends.rows import NetworkDecoder

        return NetworkDecoder(
            lambda row, ids: self.layered.read(row, ids),
            lambda rows, ids: self.layered.step(rows, ids, self.leaving),
            rows=self.rows,
            vocabulary=self.checkpoint.vocabulary,
            positions=self.checkpoint.positions,
            ends=self.checkpoint.ends,
        )

    def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
        """Generate for one request; raises `InputError` for a request outside the scope of the certificate."""
        if self.scope is not None:
            self.scope.check(request)
        return super().stream(request)


def open_exits(path: Path, options: Options, *, exits: Path, leave: str | None) -> LayerExitBackend:
    """A checkpoint with exits that are used as `leave` says: `MEASURE@NUMBER`, or `MEASURE` with a certificate.

    Without `leave`, the only measure that is certified decides.
    """
    measure, threshold = (None, None) if leave is None else parse_leave(leave)
    scope = None
    if measure is None or threshold is None:
        measure, certificates = certified(exits, measure)
        threshold, scope = certificates.threshold(), certificates.scope
    return LayerExitBackend(
        path,
        rule_of(measure, threshold),
        exits=exits,
        scope=scope,
        concurrency=options.concurrency or 16,
        prompts=options.prompts,
        thought=options.thought,
        threads=options.threads,
        loading=Loading(options.dtype, options.device),
    )


def _open(model: str, options: Options, *, scheme: str, measure: str) -> LayerExitBackend:
    folder, number = split_number(model)
    if not folder:
        raise InputError(f"{scheme} needs a folder", hint=f"--model {scheme}:FOLDER")
    leave = measure if number is None else f"{measure}@{number!r}"
    return open_exits(Path(folder), options, exits=Path(folder) / "offramps", leave=leave)


def open_calm(model: str, options: Options) -> LayerExitBackend:
    """`calm:FOLDER`, with the margin certified for the checkpoint, or `calm:FOLDER@MARGIN` without a certificate."""
    return _open(model, options, scheme="calm", measure="softmax")


def open_deebert(model: str, options: Options) -> LayerExitBackend:
    """`deebert:FOLDER@BITS`; BITS has no default, since the publication chooses it by the desired speed.

    `deebert:FOLDER` uses the certified entropy.
    """
    return _open(model, options, scheme="deebert", measure="entropy")
