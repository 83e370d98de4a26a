"""Weights on disk: a safetensors file and, beside it, a JSON card that says where they come from.

Nothing is unpickled. Both files are written to a temporary name and renamed, weights first, and the card carries the
digest of the weights, so a reader meets either a matching pair or an error that says what to do. The card names the
class of the model and its package. This module knows no model: where the classes of this package are is a table of
names, read when a card asks for one of them, and another package adds its own to `MODELS` by `register` when it is
imported. Nothing is ever imported because a card says so: a name that is in neither table is an error.
"""

import dataclasses
import hashlib
import importlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload, runtime_checkable

import torch
from torch import nn

if TYPE_CHECKING:
    from rangeformer.models.features import RangeFormer

FORMAT = "rangeformer-1"
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
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    path = _resolve("features" if path_or_name is None else path_or_name)
    card = read_card(path)
    name = card.get("model", "RangeFormer")  # cards of version 0.1 name no class: there was one
    package = card.get("package", _PACKAGE)
    entry = _entry(name)
    if entry is None and package != _PACKAGE:
        raise ValueError(
            f"Cannot load {str(path)!r}: its model {name!r} belongs to {package!r}. Import {package} first."
        )
    if entry is None:
        raise _broken(card_path(path), f"its model is {name!r}, this version knows {known_models()}")
    config_class, build = entry
    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != card.get("sha256"):
        raise _broken(path, "its SHA-256 digest is not the one on its card: truncated, corrupted or replaced")
    try:
        weights = parse(raw)
    except SafetensorError as error:
        raise _broken(path, f"not a safetensors file ({error})") from error
    try:
        # Initialising layers draws from torch's global generator, which is not ours to move.
        with torch.random.fork_rng(devices=[]):
            model = build(config_class.from_fields(card["config"]))
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise _broken(path, f"the weights do not fit the configuration on the card ({error})") from error
    if not all(torch.isfinite(w).all() for w in weights.values()):
        raise _broken(path, "it contains weights that are not finite")
    return model.requires_grad_(False).eval()


def save(model: nn.Module, path: str | os.PathLike[str], card: dict[str, Any] | None = None) -> None:
    """Write weights and card; replaces what was there, and never leaves half a file.

    Args:
        model: What to save, of a class that `load` can build; weights are stored as float32.
        path: Name of the `.safetensors` file; the card goes to the same name with `.json`.
        card: What a reader should know (seed, distributions, versions, validation...). The format, the class of the
            model and its package, its configuration and the digest of the weights are added.

    Raises:
        TypeError: If the class of `model` is not one that `load` could build.
        ValueError: If `path` does not end in `.safetensors`.
    """
    from safetensors.torch import save as serialise

    name = type(model).__name__
    if _entry(name) is None:
        raise TypeError(f"`model` must be of a class that `load` can build, one of {known_models()}. Got {name}.")
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"`path` must end in .safetensors. Got {str(path)!r}.")
    weights = {key: w.detach().to("cpu", torch.float32).contiguous().clone() for key, w in model.state_dict().items()}
    raw = serialise(weights, metadata={"format": FORMAT})
    config: Any = model.config
    own = {
        "format": FORMAT,
        "sha256": hashlib.sha256(raw).hexdigest(),
        "model": name,
        "package": type(model).__module__.partition(".")[0],
        "config": dataclasses.asdict(config),
    }
    # ours come first and win: the card of another file may be passed on as it is
    full_card = {**own, **(card or {}), **own}
    text = json.dumps(full_card, indent=2, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, raw)
    write_atomically(card_path(path), text.encode())


def card_path(path: str | os.PathLike[str]) -> Path:
    """Where the card of a weights file lies."""
    return Path(path).with_suffix(".json")


def read_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the card of a weights file; raises as `load` does."""
    path = Path(path)
    for file in (path, card_path(path)):
        if not file.is_file():
            raise FileNotFoundError(
                f"There is no file {str(file)!r}. A checkpoint is a .safetensors file and its .json card; "
                "copy both, or leave `path` out for the shipped weights."
            )
    try:
        card = json.loads(card_path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise _broken(card_path(path), f"not valid JSON ({error})") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else card
        raise _broken(card_path(path), f"its format is {found!r}, this version reads {FORMAT!r}")
    return card


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the target, then rename: the name never points at half a file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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


def _broken(path: Path, why: str) -> ValueError:
    return ValueError(
        f"Cannot load {str(path)!r}: {why}. Restore the file (reinstall the package for the shipped weights), "
        "train anew with `python -m rangeformer.pretrain`, or use an untrained model."
    )
