"""A weights file and its JSON card, replaced as one.

Two files cannot be renamed at once. New weights are written beside the old ones under a name of their own, which holds
their digest; renaming the card into place is the moment at which the new pair exists; then the new weights take the
place of the old. A kill at any time leaves a card and, under one of two names, the weights whose digest it carries.
"""

import contextlib
import glob
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # where there is no such lock, two processes must not save to one name
    fcntl = None

FORMAT = "rangeformer-1"
_DIGEST = re.compile("[0-9a-f]{64}")


def card_path(path: str | os.PathLike[str]) -> Path:
    """Where the card of a weights file lies."""
    return Path(path).with_suffix(".json")


def broken(path: Path, why: str) -> ValueError:
    """An error that says which file cannot be used, why, and what to do."""
    return ValueError(
        f"Cannot load {str(path)!r}: {why}. Restore the file (reinstall the package for the shipped weights), "
        "train anew with `python -m rangeformer.pretrain`, or use an untrained model."
    )


def read_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the card of a weights file.

    Raises:
        FileNotFoundError: If the weights or the card are not there.
        ValueError: If the card is damaged, or of another version.
    """
    path = Path(path)
    card = _parsed(card_path(path)) if card_path(path).is_file() else None
    if not path.is_file() and (card is None or not _pending(path, card).is_file()):
        raise _missing(path)
    if card is None:
        raise _missing(card_path(path))
    return card


def read_pair(path: Path) -> tuple[dict[str, Any], bytes]:
    """Read a card and the weights that belong to it; raises as `read_card` does, and if no weights do."""
    while True:
        seen = _versions(path)
        try:
            card = read_card(path)
            return card, _weights_of(path, card)
        except (FileNotFoundError, ValueError):
            if _versions(path) == seen:  # else another process has saved between two of our reads
                raise


def write_pair(path: Path, raw: bytes, card: dict[str, Any]) -> None:
    """Replace weights and card, whose `sha256` is that of the weights."""
    text = json.dumps(card, indent=2, allow_nan=False) + "\n"
    pending = _pending(path, card)
    with _alone_in(path.parent):
        # What fails from here on is left for the next save to remove: the card may carry the new digest already.
        write_atomically(pending, raw)
        write_atomically(card_path(path), text.encode())
        os.replace(pending, path)
        _sync(path.parent)
        _remove_leftovers(path)


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the target, then rename: the name never points at half a file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".tmp")
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
    _sync(path.parent)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise broken(path, f"not valid JSON ({error})") from error
    found = card.get("format") if isinstance(card, dict) else card
    if not isinstance(card, dict) or found != FORMAT:
        text = repr(found) if len(repr(found)) <= 60 else repr(found)[:60] + "..."
        later = isinstance(found, str) and re.fullmatch(r"rangeformer-\d+", found)
        advice = ". A later version of the package has written it: update the package" if later else ""
        raise broken(path, f"its format is {text}, this version reads {FORMAT!r}{advice}")
    if not isinstance(card.get("sha256"), str) or not _DIGEST.fullmatch(card["sha256"]):
        raise broken(path, "it does not carry the SHA-256 digest of the weights")
    return card


def _missing(file: Path) -> FileNotFoundError:
    kind = "only a folder" if file.is_dir() else "no file"
    return FileNotFoundError(
        f"There is {kind} {str(file)!r}. A checkpoint is a .safetensors file and its .json card; "
        "copy both, or leave `path` out for the shipped weights."
    )


def _weights_of(path: Path, card: dict[str, Any]) -> bytes:
    for file in (path, _pending(path, card)):
        raw = file.read_bytes() if file.is_file() else b""
        if hashlib.sha256(raw).hexdigest() == card["sha256"]:
            return raw
    raise broken(path, "its SHA-256 digest is not the one on its card: truncated, corrupted or replaced")


def _pending(path: Path, card: dict[str, Any]) -> Path:
    """Where weights wait until their card is in place."""
    return path.with_name(f"{path.stem}.new-{card['sha256'][:16]}{path.suffix}")


def _versions(path: Path) -> list[tuple[int, int] | None]:
    """What changes when a file is replaced."""
    found = []
    for file in (path, card_path(path)):
        try:
            status = file.stat()
            found.append((status.st_ino, status.st_mtime_ns))
        except FileNotFoundError:
            found.append(None)
    return found


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One writer at a time, of all threads and processes."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sync(folder: Path) -> None:
    """Let renames survive a power failure, where folders can be opened."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of earlier saves to this name."""
    name = re.escape(path.stem) + rf"(\.new-[0-9a-f]{{16}}\{path.suffix}(\.\w+\.tmp)?|\.(safetensors|json)\.\w+\.tmp)"
    for file in path.parent.glob(f"{glob.escape(path.stem)}.*"):
        if re.fullmatch(name, file.name):
            file.unlink(missing_ok=True)
