"""`calm:FOLDER[@MARGIN]` and `deebert:FOLDER@BITS`: a checkpoint in Hugging Face form with off-ramps, left early."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from justenough.backends.layers.leaving import Calm, DeeBert, Leaving
from justenough.backends.registry import Options
from justenough.backends.transformers import Position, TransformersBackend
from justenough.errors import BackendUnavailable, InputError

if TYPE_CHECKING:
    pass


class LayerExitBackend(TransformersBackend):
    """Each generated token leaves the network at the first layer that is sure of it; a prompt runs through all.

    The model's name carries the rule: what is calibrated on early exits is not valid for the whole network, nor the
    other way round. `Token.layers` says how many layers a token took. With `leaving` None none leaves: the whole
    network, computed as `hf:` does, for comparison.
    """

    def __init__(
        self,
        path: Path,
        leaving: Leaving | None,
        *,
        concurrency: int = 16,
        prompts: str | None = None,
        threads: int | None = None,
    ) -> None:
        super().__init__(path, prompts=prompts, threads=threads)
        from justenough.backends.layers.network import LayeredNetwork, load_ramps

        if self._network.config.model_type != "llama":
            raise InputError(
                f"{path} is a {self._network.config.model_type}", hint="early exits are written for Llama's layers"
            )
        self.concurrency = concurrency
        self.leaving = leaving
        if leaving is not None:
            self.model = f"{self.model}/{leaving.name}"
        self.layered = LayeredNetwork(self._network, load_ramps(self._network, path), rows=concurrency)
        self._free: asyncio.Queue[int] = asyncio.Queue()
        for row in range(concurrency):
            self._free.put_nowait(row)
        self._waiting: list[tuple[int, int, asyncio.Future[Position]]] = []
        self._driver: asyncio.Task[None] | None = None

    async def _position(self, feed: list[int], state: object) -> Position:
        if not isinstance(state, int):
            row = await self._free.get()
            logprobs, layers = self.layered.read(row, feed)
            return Position(logprobs, row, layers)
        answer: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self._waiting.append((state, feed[0], answer))
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        return await answer

    def _let_go(self, state: object) -> None:
        if isinstance(state, int):
            self._free.put_nowait(state)

    async def _drive(self) -> None:
        """Step all rows that ask, together, as long as one does."""
        while self._waiting:
            # Streams that have just been answered run until they ask again.
            await asyncio.sleep(0)
            asking = [asked for asked in self._waiting if not asked[2].done()]
            self._waiting = []
            if not asking:
                continue
            rows, ids, answers = (list(column) for column in zip(*asking, strict=True))
            try:
                choices = self.layered.step(rows, ids, self.leaving)
            except RuntimeError as error:
                for answer in answers:
                    answer.set_exception(BackendUnavailable(f"torch: {error}", hint="out of memory?"))
                continue
            for row, answer, choice in zip(rows, answers, choices, strict=True):
                answer.set_result(Position(choice.logprobs, row, choice.layers))


def _parted(model: str, *, scheme: str) -> tuple[Path, float | None]:
    """The folder, and the number behind the last `@`."""
    folder, at, number = model.rpartition("@") if "@" in model else (model, "", "")
    if not folder:
        raise InputError(f"{scheme} needs a folder", hint=f"--model {scheme}:models/embedded")
    if not at:
        return Path(folder), None
    try:
        return Path(folder), float(number)
    except ValueError as error:
        raise InputError(f"{number!r} is no threshold", hint=f"--model {scheme}:{folder}@0.5") from error


def _opened(path: Path, leaving: Leaving, options: Options) -> LayerExitBackend:
    return LayerExitBackend(
        path,
        leaving,
        concurrency=options.concurrency or 16,
        prompts=options.prompts,
        threads=options.threads,
    )


def open_calm(model: str, options: Options) -> LayerExitBackend:
    """`calm:FOLDER`, with the margin that was certified for the checkpoint, or `calm:FOLDER@MARGIN`."""
    from justenough.backends.layers.certificate import certified_margin

    path, margin = _parted(model, scheme="calm")
    return _opened(path, Calm(certified_margin(path) if margin is None else margin), options)


def open_deebert(model: str, options: Options) -> LayerExitBackend:
    """`deebert:FOLDER@BITS`; the publication gives no way to choose the threshold but the speed that is wanted."""
    path, bits = _parted(model, scheme="deebert")
    if bits is None:
        raise InputError("deebert needs an entropy threshold in bits", hint=f"--model deebert:{path}@0.1")
    return _opened(path, DeeBert(bits), options)
