"""Matrices with their singular values, for low-rank approximation.

Real ones, a folder of one's own, a control without structure.

What the packages that carry them are not installed for is left out, and said.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
import scipy.sparse
import torch

from experiments.common.reporting import say
from experiments.common.shipped_matrices import SHIPPED

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
        data_dir: A folder of npz files, each a scipy.sparse matrix or holding one array, and of mtx files (Matrix
            Market).
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
        paths = sorted(path for path in data_dir.iterdir() if path.suffix in READERS)
        found += [_case(path.stem, _from_file(path)) for path in paths]
    return [*found, control(120 if smoke else 600)]


def control(n: int, *, seed: int = 0) -> Case:
    """Singular values j^-1 with Haar singular vectors: a few rows tell no more than themselves."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2 * n, n)
    U, V = (torch.linalg.qr(torch.randn(size, n, generator=generator, dtype=torch.float64)).Q for size in shape)
    values = torch.arange(1, n + 1, dtype=torch.float64).reciprocal()
    return Case("haar", ((U * values) @ V.mT).numpy(), values.numpy(), is_control=True)


def _from_file(path: Path) -> np.ndarray:
    A = READERS[path.suffix](path)
    A = A.toarray() if scipy.sparse.issparse(A) else A
    if A.ndim != 2 or min(A.shape) < 2:
        raise ValueError(f"`--data-dir` must hold matrices. Got shape {A.shape} in {path.name}.")
    if not np.isfinite(A).all():
        raise ValueError(f"`--data-dir` must hold finite matrices. Got NaN or infinity in {path.name}.")
    return np.ascontiguousarray(A[:, :_MOST_COLUMNS], dtype=np.float64)


def _from_npz(path: Path):
    try:
        return scipy.sparse.load_npz(path)
    except ValueError:  # an npz file of arrays
        with np.load(path) as arrays:
            return arrays[arrays.files[0]]


def _case(name: str, A: np.ndarray) -> Case:
    A = np.ascontiguousarray(A, dtype=np.float64)
    return Case(name, A, np.linalg.svd(A, compute_uv=False))


READERS = {".npz": _from_npz, ".mtx": lambda path: scipy.io.mmread(path, spmatrix=False)}
"""By ending, what reads a file of a folder."""

SMOKE = ("digits", "breast cancer", "ocean floor")
"""Names of three small ones."""
