"""The transpose of a matrix, read through the matrix itself."""

import torch

from rangeformer.operators.base import MatrixOperator
from rangeformer.shapes import Tensor


class TransposedOperator(MatrixOperator):
    """A.mT with A's cost counts: what is read here is read of A.

    Args:
        operator: A.
    """

    def __init__(self, operator: MatrixOperator):
        shape = (*operator.batch_shape, operator.num_columns, operator.num_rows)
        super().__init__(torch.Size(shape), operator.dtype, operator.device)
        self.reads = operator.reads
        self.has_entries = operator.has_entries
        self._operator = operator

    @property
    def requires_grad(self) -> bool:
        return self._operator.requires_grad

    def _matmul(self, vectors: Tensor) -> Tensor:
        return self._operator._rmatmul(vectors)

    def _rmatmul(self, vectors: Tensor) -> Tensor:
        return self._operator._matmul(vectors)

    def _columns(self, index: Tensor) -> Tensor:
        return self._operator._rows(index).mT

    def _rows(self, index: Tensor) -> Tensor:
        return self._operator._columns(index).mT

    def _diagonal(self) -> Tensor:
        return self._operator._diagonal()

    def _entries(self, rows: Tensor, columns: Tensor) -> Tensor:
        return self._operator._entries(columns, rows)
