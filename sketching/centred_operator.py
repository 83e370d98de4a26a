"""A matrix minus the means of its columns, which is never formed: what is sparse stays sparse."""

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.shapes import Float, Tensor


class CentredOperator(MatrixOperator):
    """A - 1 mean^T with A's cost counts.

    Products subtract two numbers of A's size, so entries far larger than their deviations lose digits: centre dense
    matrices in place instead.

    Args:
        operator: A, `(m, n)`.
        mean: `(n,)` to take from every row.
    """

    def __init__(self, operator: MatrixOperator, mean: Float[Tensor, " n"]):
        super().__init__(operator.shape, operator.dtype, operator.device)
        self.reads = operator.reads
        self.has_entries = operator.has_entries
        self._operator, self._mean = operator, mean

    @property
    def requires_grad(self) -> bool:
        """As A."""
        return self._operator.requires_grad

    def _matmul(self, vectors: Tensor) -> Tensor:
        return self._operator._matmul(vectors) - self._mean @ vectors

    def _rmatmul(self, vectors: Tensor) -> Tensor:
        return self._operator._rmatmul(vectors) - torch.outer(self._mean, vectors.sum(0))

    def _rows(self, index: Tensor) -> Tensor:
        return self._operator._rows(index) - self._mean

    def _columns(self, index: Tensor) -> Tensor:
        return self._operator._columns(index) - self._mean[index]

    def _diagonal(self) -> Tensor:
        return self._operator._diagonal() - self._mean[: self.num_rows]

    def _entries(self, rows: Tensor, columns: Tensor) -> Tensor:
        return self._operator._entries(rows, columns) - self._mean[columns]
