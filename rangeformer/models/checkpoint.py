"""Weights on disk: a safetensors file and, beside it, a JSON card that says where they come from.

Nothing is unpickled. The card carries the digest of the weights, so a reader meets either a matching pair or an error
that says what to do; how the two are replaced as one is in `stored_pair.py`. The weights in turn carry the class and
the configuration on the card. The card names the class of the model and its package. This module knows no model: where
the classes of this package are is a table of names, read when a card asks for one of them, and another package adds its
own to `MODELS` by `register` when it is imported. Nothing is ever imported because a card says so: a name that is in
neither table is an error.
"""

import dataclasses
import hashlib
import importlib
import json
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload, runtime_checkable

import torch
from torch import Tensor, nn

from rangeformer.models.stored_pair import FORMAT, broken, read_pair, write_pair
from rangeformer.models.stored_pair import card_path as card_path
from rangeformer.models.stored_pair import read_card as read_card
from rangeformer.models.stored_pair import write_atomically as write_atomically

if TYPE_CHECKING:
    from rangeformer.models.features import RangeFormer

_PACKAGE = __name__.partition(".")[0]


@runtime_checkable
class ModelConfig(Protocol):
    """A frozen dataclass of plain values that comes back from JSON, where tuples are lists."""

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Any:
        """Build from plain JSON values."""
        ...


Entry = tuple[type[ModelConfig], Callable[[Any], nn.Module]]

MODELS: dict[str, Entry] = {}
"""Name of a registered model's class -> class of its configuration, and how a model is built from one."""

_FEATURES = "rangeformer.models.features", "RangeFormerConfig", "RangeFormer.untrained"
_LEARNED_KRYLOV = "rangeformer.models.learned_krylov", "LearnedKrylovConfig", "LearnedKrylovModel.untrained"
_PURE = "rangeformer.models.pure", "PureConfig", "PureRangeFormer.untrained"
_LAWT = "rangeformer.baselines.lawt", "LawtConfig"
# Where the models of this package are: module, class of the configuration, what builds a model from one.
_OWN: dict[str, tuple[str, str, str]] = {
    "RangeFormer": _FEATURES,
    "LearnedKrylovModel": _LEARNED_KRYLOV,
    "GalerkinRangeFormer": _LEARNED_KRYLOV,  # its name on the cards of version 0.1
    "PureRangeFormer": _PURE,
    "PaperRangeFormer": ("rangeformer.baselines", "PaperConfig", "PaperRangeFormer"),
    "LawtTransformer": (*_LAWT, "LawtTransformer"),
    "LawtRecurrent": (*_LAWT, "LawtRecurrent"),
}


def known_models() -> list[str]:
    """Names of the classes that `load` can build, in alphabetical order."""
    return sorted({*_OWN, *MODELS})


def _entry(name: str) -> Entry | None:
    """How a model of that name is built; None if the name is in neither table."""
    if name in MODELS or name not in _OWN:
        return MODELS.get(name)
    module, config, build = _OWN[name]
    found: Any = importlib.import_module(module)
    builder = found
    for part in build.split("."):
        builder = getattr(builder, part)
    return getattr(found, config), builder


def register(
    model_class: type[nn.Module],
    config_class: type[ModelConfig],
    build: Callable[[Any], nn.Module],
    *,
    former_names: tuple[str, ...] = (),
) -> None:
    """Let `save` and `load` know a class of models that another package defines.

    Args:
        model_class: Its name goes on the cards; its models have a `config`.
        config_class: Class of that.
        build: From a configuration to a model, whose weights `load` then replaces.
        former_names: What older cards call the class.

    Raises:
        ValueError: If another class of one of these names is known already.
    """
    for name in (model_class.__name__, *former_names):
        known = (_entry(name) or (config_class, build))[0]
        if known.__module__ != config_class.__module__:  # the same module may be loaded anew
            raise ValueError(f"`model_class` must have a name of its own. {known.__module__} has a model {name!r}.")
        MODELS[name] = (config_class, build)


_WEIGHTS = Path(__file__).parent.parent / "weights"
SHIPPED: dict[str, Path] = {
    "features": _WEIGHTS / "rangeformer-v1.safetensors",
    "learned-krylov": _WEIGHTS / "galerkin-v1.safetensors",
    "galerkin": _WEIGHTS / "galerkin-v1.safetensors",  # its name in version 0.1
    "pure": _WEIGHTS / "pure-v1.safetensors",
}
"""Weights that come with the package, by what they are for."""


@overload
def load(path_or_name: None = None) -> "RangeFormer": ...
@overload
def load(path_or_name: str | os.PathLike[str]) -> Any: ...
def load(path_or_name: str | os.PathLike[str] | None = None) -> Any:
    """Load a model from its weights and card.

    Args:
        path_or_name: A `.safetensors` file, whose card is the `.json` file of the same name; or shipped weights by
            name: "features" (what the preconditioners use), "learned-krylov" or "pure" (the models that answer
                themselves).
            Default: "features".

    Returns:
        The model, of the class its card names, in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: If the weights or the card are not there.
        ValueError: If either is truncated, corrupted, or does not belong to the other, the name is not known, or the
            model is of another package that has not been imported.

    Example:
        >>> from rangeformer.models.checkpoint import load
        >>> load().config.num_loops
        3
    """
    path = _resolve("features" if path_or_name is None else path_or_name)
    card, raw = read_pair(path)
    name = card.get("model", "RangeFormer")  # cards of version 0.1 name no class: there was one
    package = card.get("package", _PACKAGE)
    entry = _entry(name) if isinstance(name, str) else None
    if entry is None and package != _PACKAGE:
        raise ValueError(
            f"Cannot load {str(path)!r}: its model {name!r} belongs to {package!r}. Import {package} first."
        )
    if entry is None:
        raise broken(card_path(path), f"its model is {name!r}, this version knows {known_models()}")
    config_class, build = entry
    weights, written = _parsed(path, raw)
    if written not in (None, _identity(name, card.get("config"))):
        raise broken(card_path(path), "its model and configuration are not those that the weights were saved with")
    try:
        # Initialising layers draws from torch's global generator, which is not ours to move.
        with torch.random.fork_rng(devices=[]):
            model = build(config_class.from_fields(card["config"]))
        model.load_state_dict(weights)
    except Exception as error:  # the card decides what is built, so whatever it leads to is the card's fault
        why = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise broken(path, f"the weights do not fit the configuration on the card ({why})") from error
    return model.requires_grad_(False).eval()


def _parsed(path: Path, raw: bytes) -> tuple[dict[str, Tensor], str | None]:
    """The weights, finite float32, and the identity they carry; None for weights of version 0.1."""
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    try:
        weights = parse(raw)
    except (SafetensorError, KeyError) as error:  # KeyError: a data type that torch has no name for
        raise broken(path, f"not a safetensors file ({error})") from error
    for key, weight in weights.items():
        if weight.dtype != torch.float32:
            raise broken(path, f"its weights {key!r} are {weight.dtype}, not torch.float32")
        if not bool(torch.isfinite(weight).all()):
            raise broken(path, f"it contains weights that are not finite: {key!r}")
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return weights, (header.get("__metadata__") or {}).get("model")


def _identity(name: str, config: Any) -> str:
    """What the weights say of the card: one string, because several entries are stored in random order."""
    return json.dumps({"format": FORMAT, "model": name, "config": config}, sort_keys=True)


def save(model: nn.Module, path: str | os.PathLike[str], card: dict[str, Any] | None = None) -> None:
    """Write weights and card; replaces what was there, and never leaves half a file.

    Args:
        model: What to save, of a class that `load` can build; weights are stored as float32.
        path: Name of the `.safetensors` file; the card goes to the same name with `.json`.
        card: What a reader should know (seed, distributions, versions, validation...). The format, the class of the
            model and its package, its configuration and the digest of the weights are added.

    Raises:
        TypeError: If the class of `model` is not one that `load` could build.
        ValueError: If `path` does not end in `.safetensors`, or a weight is not finite.
        IsADirectoryError: If `path` or its card is a folder.
    """
    from safetensors.torch import save as serialise

    name = type(model).__name__
    if _entry(name) is None:
        raise TypeError(f"`model` must be of a class that `load` can build, one of {known_models()}. Got {name}.")
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"`path` must end in .safetensors. Got {str(path)!r}.")
    for file in (path, card_path(path)):
        if file.is_dir():
            raise IsADirectoryError(f"`path` must be the name of a file. {str(file)!r} is a folder.")
    weights = {key: w.detach().to("cpu", torch.float32).contiguous().clone() for key, w in model.state_dict().items()}
    if bad := [key for key, weight in weights.items() if not bool(torch.isfinite(weight).all())]:
        raise ValueError(f"`model` must have weights that are finite in float32. {bad} are not; nothing was written.")
    model_config: Any = model.config
    config = dataclasses.asdict(model_config)
    raw = serialise(weights, metadata={"model": _identity(name, config)})
    own = {
        "format": FORMAT,
        "sha256": hashlib.sha256(raw).hexdigest(),
        "model": name,
        "package": type(model).__module__.partition(".")[0],
        "config": config,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # ours come first and win: the card of another file may be passed on as it is
    write_pair(path, raw, {**own, **(card or {}), **own})


def _resolve(path_or_name: str | os.PathLike[str]) -> Path:
    """The weights file of a shipped name or of a path."""
    if isinstance(path_or_name, str) and path_or_name in SHIPPED:
        path = SHIPPED[path_or_name]
        if not path.is_file():
            raise FileNotFoundError(
                f"The shipped weights {path_or_name!r} are not installed: there is no file {str(path)!r}. Reinstall "
                "the "
                f"package, or train them with `python -m rangeformer.pretrain --config {path_or_name} --out FILE` and "
                "load FILE."
            )
        return path
    path = Path(path_or_name)
    if path.suffix != ".safetensors":
        raise ValueError(
            f"`path_or_name` must be a .safetensors file or one of {sorted(SHIPPED)}. Got {str(path_or_name)!r}."
        )
    return path
