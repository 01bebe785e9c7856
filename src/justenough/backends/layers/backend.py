"""`calm:FOLDER[@MARGIN]` and `deebert:FOLDER@BITS`: a checkpoint in Hugging Face form with early exits."""

from __future__ import annotations

import asyncio
from pathlib import Path

from justenough.backends.layers.leaving import Calm, DeeBert, Leaving
from justenough.backends.registry import Options, split_number
from justenough.backends.transformers import Position, TransformersBackend
from justenough.errors import BackendUnavailable, InputError


class LayerExitBackend(TransformersBackend):
    """Each generated token exits the network at the first confident layer; a prompt runs through all layers.

    The name of the model contains the rule, because a calibration on early exits is not valid for the whole network,
    and the reverse. `Token.layers` is the number of layers that ran for a token. With `leaving` None, all tokens run
    through the whole network as with `hf:`, for comparison.
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
            raise InputError(f"{path} is a {self._network.config.model_type}", hint="early exits support only Llama")
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

    def _free_state(self, state: object) -> None:
        if isinstance(state, int):
            self._free.put_nowait(state)

    async def _drive(self) -> None:
        """Step all waiting rows together, while there is one."""
        while self._waiting:
            # Let the streams that have an answer run until they wait again.
            await asyncio.sleep(0)
            waiting = [entry for entry in self._waiting if not entry[2].done()]
            self._waiting = []
            if not waiting:
                continue
            rows, ids, answers = (list(column) for column in zip(*waiting, strict=True))
            try:
                choices = self.layered.step(rows, ids, self.leaving)
            except RuntimeError as error:
                for answer in answers:
                    answer.set_exception(BackendUnavailable(f"torch: {error}", hint="is there enough memory?"))
                continue
            for row, answer, choice in zip(rows, answers, choices, strict=True):
                answer.set_result(Position(choice.logprobs, row, choice.layers))


def _parse_spec(model: str, *, scheme: str) -> tuple[Path, float | None]:
    folder, number = split_number(model)
    if not folder:
        raise InputError(f"{scheme} needs a folder", hint=f"--model {scheme}:FOLDER")
    return Path(folder), number


def _open(path: Path, leaving: Leaving, options: Options) -> LayerExitBackend:
    concurrency = options.concurrency or 16
    return LayerExitBackend(path, leaving, concurrency=concurrency, prompts=options.prompts, threads=options.threads)


def open_calm(model: str, options: Options) -> LayerExitBackend:
    """`calm:FOLDER`, with the margin certified for the checkpoint, or `calm:FOLDER@MARGIN`."""
    from justenough.backends.layers.certificate import certified_margin

    path, margin = _parse_spec(model, scheme="calm")
    return _open(path, Calm(certified_margin(path) if margin is None else margin), options)


def open_deebert(model: str, options: Options) -> LayerExitBackend:
    """`deebert:FOLDER@BITS`; BITS has no default, since the publication chooses it by the desired speed."""
    path, bits = _parse_spec(model, scheme="deebert")
    if bits is None:
        raise InputError("deebert needs an entropy threshold in bits", hint=f"--model deebert:{path}@0.1")
    return _open(path, DeeBert(bits), options)
