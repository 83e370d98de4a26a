"""Square matrices from a folder, as people exchange them: scipy.sparse npz files and Matrix Market files."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import scipy.io
import scipy.sparse
import torch
from torch import Tensor

LARGEST = 5000  # rows; the truth is a dense factorisation
_SUFFIXES = (".npz", ".mtx", ".mtx.gz")


@dataclass(frozen=True)
class NamedMatrix:
    """A symmetric positive definite matrix and what it is called."""

    name: str
    matrix: scipy.sparse.csr_array  # (n, n), float64

    @property
    def num_rows(self) -> int:
        """Number n of rows."""
        return cast("tuple[int, int]", self.matrix.shape)[0]

    def dense(self) -> Tensor:
        """The matrix as a float64 tensor, (n, n)."""
        return torch.from_numpy(self.matrix.toarray())


def read(folder: Path) -> list[NamedMatrix]:
    """The symmetric positive definite matrices of a folder, by size; whatever is not one, or too large, is passed over.

    Raises:
        ValueError: If the folder holds none.
    """
    files = sorted(file for file in folder.iterdir() if file.name.endswith(_SUFFIXES))
    found = [NamedMatrix(file.name.split(".")[0], matrix) for file in files if (matrix := _read(file)) is not None]
    definite = [item for item in found if is_positive_definite(item)]
    if not definite:
        raise ValueError(
            f"{folder.name!r} must hold symmetric positive definite matrices of at most {LARGEST} rows, as npz "
            f"(scipy.sparse.save_npz) or mtx files. Got {len(files)} such files, none of them one."
        )
    return sorted(definite, key=lambda item: item.num_rows)


def is_positive_definite(item: NamedMatrix) -> bool:
    """Whether a dense Cholesky factor exists in float64."""
    _, info = torch.linalg.cholesky_ex(item.dense())
    return int(info) == 0


def _read(file: Path) -> scipy.sparse.csr_array | None:
    matrix = scipy.sparse.load_npz(file) if file.suffix == ".npz" else scipy.io.mmread(file)
    matrix = scipy.sparse.csr_array(matrix)
    num_rows, num_columns = cast("tuple[int, int]", matrix.shape)
    if num_rows != num_columns or num_rows > LARGEST or np.iscomplexobj(matrix.data):
        return None
    matrix = matrix.astype(np.float64)
    if abs(matrix - matrix.T).max() > 1e-12 * abs(matrix).max() or matrix.diagonal().min() <= 0:
        return None
    return scipy.sparse.csr_array((matrix + matrix.T) / 2)
