"""The weights of exits: off-ramps behind some layers of a network. Needs torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from justenough.errors import InputError
from justenough.files import load_json, read_as, write_text, written_whole

FOLDER: Final = "offramps"
"""The default folder inside that of the checkpoint: vLLM loads all weights that are beside those of the checkpoint."""
WEIGHTS: Final = "model.safetensors"
SETTINGS: Final = "exits.json"
KINDS: Final = ("llama", "qwen2", "qwen3")
"""Values of `model_type` in `config.json` that are supported."""
_HINT: Final = "train them: justenough exits train --model PATH --texts FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitSettings:
    """The settings of exits, and how well they agree with the network; the content of `exits.json`."""

    layers: tuple[int, ...]
    """Layers with an exit behind them, from 1, in ascending order."""
    shared_head: bool = False
    """Each exit has a linear map in front of the head of the network, instead of a head of its own."""
    classifier: bool = True
    """There are early classifiers."""
    tokenizer: str = ""
    """The `tokenizer_digest` of the checkpoint."""
    network: str = ""
    """The `network_digest` of the checkpoint; empty in exits of an earlier version."""
    tokens: int = 0
    """Tokens that the exits were trained on."""
    agreement: tuple[float, ...] = ()
    """How often each exit has the same most likely token as the network, on texts that were not trained."""


class OffRamps(nn.Module):
    """Exits behind some layers: a norm and a linear map to the vocabulary each.

    They begin as the last norm and the head of the network. With a shared head, as in CALM, an exit trains only its
    norm and a linear map of the state, which begins as the identity (the "tuned lens", arXiv 2303.08112).
    """

    def __init__(self, network: Any, settings: ExitSettings) -> None:
        super().__init__()
        config, count = network.config, len(settings.layers)
        hidden = config.hidden_size
        self.settings = settings
        self._shared = (network.lm_head,)  # A tuple, so that its weights are not those of the exits.
        self.norms = nn.ModuleList(nn.RMSNorm(hidden, eps=config.rms_norm_eps) for _ in range(count))
        wide = (hidden, hidden) if settings.shared_head else (hidden, config.vocab_size)
        linear = nn.ModuleList(nn.Linear(*wide, bias=False) for _ in range(count))
        self.maps, self.heads = (linear, nn.ModuleList()) if settings.shared_head else (nn.ModuleList(), linear)
        self.trusts = nn.ModuleList(nn.Linear(hidden, 1) for _ in range(count if settings.classifier else 0))
        with torch.no_grad():
            for parameter in self.norms.parameters():
                parameter.copy_(network.model.norm.weight)
            for parameter in self.heads.parameters():
                parameter.copy_(network.lm_head.weight)
            for parameter in (*self.maps.parameters(), *self.trusts.parameters()):
                parameter.zero_()

    @classmethod
    def like(cls, network: Any, settings: ExitSettings | None = None) -> OffRamps:
        """New exits for a network; by default with a head behind each layer except the last."""
        layers = tuple(range(1, network.config.num_hidden_layers))
        return cls(network, settings or ExitSettings(layers=layers, classifier=False))

    def normed(self, hidden: Tensor, layer: int) -> Tensor:
        """The states (…, d) behind a layer, as its exit reads them."""
        at = self.settings.layers.index(layer)
        hidden = hidden.to(next(self.parameters()).dtype)
        if self.settings.shared_head:
            hidden = hidden + self.maps[at](hidden)
        out: Tensor = self.norms[at](hidden)
        return out

    def logits(self, normed: Tensor, layer: int) -> Tensor:
        """Logits (…, V) of normed states (…, d)."""
        if self.settings.shared_head:
            weight = self._shared[0].weight
            return F.linear(normed.to(weight.dtype), weight).to(normed.dtype)
        out: Tensor = self.heads[self.settings.layers.index(layer)](normed)
        return out

    def trust(self, normed: Tensor, layer: int) -> Tensor:
        """The early classifier's logit (…,) of normed states (…, d)."""
        out: Tensor = self.trusts[self.settings.layers.index(layer)](normed)[..., 0]
        return out

    def forward(self, hidden: Tensor, layer: int) -> Tensor:
        """Logits (…, V) of the hidden states (…, d) behind a layer; layers count from 1."""
        return self.logits(self.normed(hidden, layer), layer)

    def save(self, folder: Path) -> None:
        """Write weights, in half precision, and settings. A certificate of earlier weights is deleted.

        Raises `InputError` if a weight is not finite in half precision.
        """
        from justenough.backends.layers.certificate import FILE

        weights = {name: value.to(torch.float16).cpu().contiguous() for name, value in self.state_dict().items()}
        if not all(value.isfinite().all() for value in weights.values()):
            raise InputError("the training diverged: weights are not finite", hint="use a smaller --rate")
        with written_whole(folder / WEIGHTS) as temporary:
            (folder / FILE).unlink(missing_ok=True)
            save_file(weights, temporary)
        write_text(folder / SETTINGS, json.dumps(asdict(self.settings), indent=2) + "\n")


def load_ramps(network: Any, folder: Path) -> OffRamps:
    """The exits in a folder, in the dtype of the network; raises `InputError` if there are none or they do not fit."""
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder} has no {WEIGHTS}", hint=_HINT)
    path = folder / SETTINGS
    settings = read_as(load_json(path, hint=_HINT), ExitSettings, where=str(path), hint=_HINT)
    if not set(settings.layers) <= set(range(1, network.config.num_hidden_layers)):
        hint = "train exits for this checkpoint"
        raise InputError(f"{folder} belongs to another checkpoint: exits at {settings.layers}", hint=hint)
    ramps = OffRamps(network, settings)
    try:
        ramps.load_state_dict({name: value.float() for name, value in load_file(folder / WEIGHTS).items()})
    except (RuntimeError, SafetensorError) as error:
        hint = "train exits for this checkpoint"
        raise InputError(f"{folder} belongs to another checkpoint, or is damaged", hint=hint) from error
    ramps.to(device=network.device, dtype=network.dtype)
    return ramps.eval().requires_grad_(False)


def weights_digest(folder: Path) -> str:
    """SHA-256 of the weights of exits."""
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def network_digest(folder: Path) -> str:
    """SHA-256 of the first row of each weight, which fine-tuning changes; empty without safetensors."""
    rows: dict[str, bytes] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  # It is no mapping.
                weight = file.get_slice(name)
                row = weight[:1] if weight.get_shape() else file.get_tensor(name)
                rows[name] = row.contiguous().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(b"".join(name.encode() + rows[name] for name in sorted(rows))).hexdigest() if rows else ""


def check_kind(network: Any, path: Path) -> None:
    """Raise `InputError` for an architecture that is not supported."""
    config = network.config
    if config.model_type not in KINDS:
        raise InputError(f"{path} is a {config.model_type}", hint=f"early exits support only {', '.join(KINDS)}")
    if set(getattr(config, "layer_types", None) or ("full_attention",)) != {"full_attention"}:
        raise InputError(f"{path} has layers with a sliding window", hint="early exits support only full attention")
