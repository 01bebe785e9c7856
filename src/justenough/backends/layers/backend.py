"""`calm:FOLDER[@MARGIN]` and `deebert:FOLDER@BITS`: a checkpoint in Hugging Face form with early exits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cached_property, partial
from pathlib import Path

from justenough.backends.batched import Decoder
from justenough.backends.layers.certificate import Scope, certified_margin, read_scope
from justenough.backends.layers.leaving import Calm, DeeBert, Leaving
from justenough.backends.protocol import Finish, Request
from justenough.backends.registry import Options, split_number
from justenough.backends.transformers import TransformersBackend
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
        scope: Scope | None = None,
        concurrency: int = 16,
        prompts: str | None = None,
        threads: int | None = None,
    ) -> None:
        super().__init__(path, concurrency=concurrency, prompts=prompts, threads=threads)
        from justenough.backends.layers.network import LayeredNetwork, load_ramps

        network = self.checkpoint.network
        if network.config.model_type != "llama":
            raise InputError(f"{path} is a {network.config.model_type}", hint="early exits support only Llama")
        self.leaving, self.scope = leaving, scope
        if leaving is not None:
            self.model = f"{self.model}/{leaving.name}"
        self.layered = LayeredNetwork(network, load_ramps(network, path), rows=concurrency)

    @cached_property
    def engine(self) -> Decoder:
        """The decoder, loaded at the first use."""
        from justenough.backends.rows import NetworkDecoder

        return NetworkDecoder(
            self.layered.read,
            partial(self.layered.step, leaving=self.leaving),
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


def _parse_spec(model: str, *, scheme: str) -> tuple[Path, float | None]:
    folder, number = split_number(model)
    if not folder:
        raise InputError(f"{scheme} needs a folder", hint=f"--model {scheme}:FOLDER")
    return Path(folder), number


def _open(path: Path, leaving: Leaving, options: Options, scope: Scope | None = None) -> LayerExitBackend:
    return LayerExitBackend(
        path,
        leaving,
        scope=scope,
        concurrency=options.concurrency or 16,
        prompts=options.prompts,
        threads=options.threads,
    )


def open_calm(model: str, options: Options) -> LayerExitBackend:
    """`calm:FOLDER`, with the margin certified for the checkpoint, or `calm:FOLDER@MARGIN` without a certificate."""
    path, margin = _parse_spec(model, scheme="calm")
    if margin is not None:
        return _open(path, Calm(margin), options)
    return _open(path, Calm(certified_margin(path)), options, read_scope(path))


def open_deebert(model: str, options: Options) -> LayerExitBackend:
    """`deebert:FOLDER@BITS`; BITS has no default, since the publication chooses it by the desired speed."""
    path, bits = _parse_spec(model, scheme="deebert")
    if bits is None:
        raise InputError("deebert needs an entropy threshold in bits", hint=f"--model deebert:{path}@0.1")
    return _open(path, DeeBert(bits), options)
