"""Weights on disk: a safetensors file and, beside it, a JSON card that says where they come from.

Nothing is unpickled. Both files are written to a temporary name and renamed, weights first, and the card carries the
digest of the weights, so a reader meets either a matching pair or an error that says what to do.
"""

import dataclasses
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from rangeformer.model import RangeFormer, RangeFormerConfig

FORMAT = "rangeformer-1"
SHIPPED = Path(__file__).parent / "weights" / "rangeformer-v1.safetensors"


def load(path: str | os.PathLike[str] | None = None) -> RangeFormer:
    """Load a RangeFormer from its weights and card.

    Args:
        path: The `.safetensors` file; its card is the `.json` file of the same name. Default: the shipped weights.

    Returns:
        The model, in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: If the weights or the card are not there.
        ValueError: If either is truncated, corrupted, or does not belong to the other.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    path = SHIPPED if path is None else Path(path)
    card = read_card(path)
    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != card.get("sha256"):
        raise _broken(path, "its SHA-256 digest is not the one on its card: truncated, corrupted or replaced")
    try:
        weights = parse(raw)
    except SafetensorError as error:
        raise _broken(path, f"not a safetensors file ({error})") from error
    try:
        model = RangeFormer.untrained(RangeFormerConfig.from_fields(card["config"]))
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise _broken(path, f"the weights do not fit the configuration on the card ({error})") from error
    if not all(torch.isfinite(w).all() for w in weights.values()):
        raise _broken(path, "it contains weights that are not finite")
    return model.requires_grad_(False).eval()


def save(model: RangeFormer, path: str | os.PathLike[str], card: dict[str, Any] | None = None) -> None:
    """Write weights and card; replaces what was there, and never leaves half a file.

    Args:
        model: What to save; weights are stored as float32.
        path: Name of the `.safetensors` file; the card goes to the same name with `.json`.
        card: What a reader should know (seed, laws, versions, validation...). The configuration, the format and the
            digest of the weights are added.
    """
    from safetensors.torch import save as serialise

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"`path` must end in .safetensors. Got {str(path)!r}.")
    weights = {name: w.detach().to("cpu", torch.float32).contiguous().clone() for name, w in model.state_dict().items()}
    raw = serialise(weights, metadata={"format": FORMAT})
    full_card = {
        "format": FORMAT,
        "sha256": hashlib.sha256(raw).hexdigest(),
        "config": dataclasses.asdict(model.config),
        **(card or {}),
    }
    text = json.dumps(full_card, indent=2, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, raw)
    _write(card_path(path), text.encode())


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


def _write(path: Path, data: bytes) -> None:
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


def _broken(path: Path, why: str) -> ValueError:
    return ValueError(
        f"Cannot load {str(path)!r}: {why}. Restore the file (reinstall the package for the shipped weights), "
        "train anew with `python -m rangeformer.pretrain`, or use RangeFormer.untrained()."
    )
