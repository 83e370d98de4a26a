"""scipy.sparse matrices (CPU; products by torch's sparse kernels would gain nothing here)."""

from typing import Any

import numpy as np
import scipy.sparse
import torch

from rangeformer.operators.base import MatrixOperator
from rangeformer.shapes import Tensor


class SparseOperator(MatrixOperator):
    """One scipy.sparse matrix or array, kept in compressed rows (and columns, on demand)."""

    has_entries = True

    def __init__(self, matrix: Any):
        self._csr = scipy.sparse.csr_array(matrix)
        self._csc = scipy.sparse.csc_array(self._csr)
        dtype = torch.from_numpy(np.empty(0, self._csr.dtype)).dtype
        super().__init__(torch.Size(matrix.shape), dtype, torch.device("cpu"))

    @property
    def requires_grad(self) -> bool:
        return False

    def _matmul(self, vectors: Tensor) -> Tensor:
        return torch.from_numpy(self._csr @ vectors.detach().numpy())

    def _rmatmul(self, vectors: Tensor) -> Tensor:
        return torch.from_numpy(self._csc.T @ vectors.detach().numpy())

    def matmul_precise(self, vectors: Tensor) -> Tensor:
        self.reads.passes += 1
        self.reads.matvecs += vectors.shape[-1]
        product = self._csr.astype(np.float64) @ vectors.detach().to(torch.float64).numpy()
        return torch.from_numpy(product)

    def _columns(self, index: Tensor) -> Tensor:
        return torch.from_numpy(self._csc[:, _index(index)].toarray())

    def _rows(self, index: Tensor) -> Tensor:
        return torch.from_numpy(self._csr[_index(index)].toarray())

    def _diagonal(self) -> Tensor:
        return torch.from_numpy(self._csr.diagonal().copy())

    def _entries(self, rows: Tensor, columns: Tensor) -> Tensor:
        picked = np.asarray(self._csr[_index(rows), _index(columns)]).reshape(-1)
        return torch.from_numpy(picked.astype(self._csr.dtype, copy=False))


def _index(index: Tensor) -> np.ndarray:
    """An index that owns its memory: SciPy sets flags that NumPy refuses on views of torch's."""
    return index.numpy().copy()
