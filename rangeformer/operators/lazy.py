"""Operators of the `linear_operator` library, recognised by their methods so that it stays optional.

Most of what GPyTorch hands over is a dense kernel plus a diagonal; those are unwrapped into a
`DenseOperator` that never forms the sum. Everything else (Toeplitz, Kronecker, interpolated, KeOps)
keeps its own products, and its entries are read through `_get_indices`.
"""

from typing import Any

import torch

from rangeformer.operators.base import MatrixOperator
from rangeformer.operators.dense import DenseOperator
from rangeformer.shapes import Tensor


def is_linear_operator(candidate: object) -> bool:
    """Whether `candidate` is a LinearOperator, without importing the library."""
    return any(
        base.__name__ == "LinearOperator" and base.__module__.startswith("linear_operator.")
        for base in type(candidate).__mro__
    )


def from_linear_operator(operator: Any) -> MatrixOperator:
    """Read a LinearOperator in the cheapest way its structure allows.

    Args:
        operator: Any LinearOperator, lazily evaluated kernels included.

    Returns:
        A `DenseOperator` where the parts are dense anyway, else a `LazyOperator`.
    """
    operator = operator.evaluate_kernel()
    noise = None
    kernel = operator
    if type(operator).__name__ == "AddedDiagLinearOperator":
        kernel, noise = operator._linear_op, operator._diag_tensor._diagonal()
    matrix = _dense(kernel)
    if matrix is None:
        return LazyOperator(operator, noise)
    if noise is not None:
        batch_shape = torch.broadcast_shapes(matrix.shape[:-2], noise.shape[:-1])
        matrix = matrix.expand(*batch_shape, *matrix.shape[-2:])
        noise = noise.expand(*batch_shape, matrix.shape[-1])
    return DenseOperator(matrix, noise)


def _dense(operator: Any) -> Tensor | None:
    """The tensor of an operator made of dense parts; None where forming it would lose structure."""
    name = type(operator).__name__
    if name == "DenseLinearOperator":
        return operator.tensor
    if name == "ConstantMulLinearOperator":
        matrix = _dense(operator.base_linear_op)
        return None if matrix is None else matrix * operator.expanded_constant
    if name in ("SumLinearOperator", "PsdSumLinearOperator"):
        total = None
        for part in operator.linear_ops:
            matrix = _dense(part)
            if matrix is None:
                return None
            total = matrix if total is None else total + matrix
        return total
    return None


class LazyOperator(MatrixOperator):
    """A LinearOperator with structure of its own."""

    has_entries = True

    def __init__(self, operator: Any, noise: Tensor | None):
        super().__init__(operator.shape, operator.dtype, operator.device)
        self._operator = operator
        self._noise = None if noise is None else noise.expand(*self.shape[:-1])

    @property
    def requires_grad(self) -> bool:
        return any(t.requires_grad for t in self._operator.representation())

    @property
    def noise(self) -> Tensor | None:
        return self._noise

    def _matmul(self, vectors: Tensor) -> Tensor:
        return self._operator.matmul(vectors)

    def _rmatmul(self, vectors: Tensor) -> Tensor:
        return self._operator.mT.matmul(vectors)

    def _diagonal(self) -> Tensor:
        return self._operator.diagonal(dim1=-2, dim2=-1).expand(*self.shape[:-1])

    def _entries(self, rows: Tensor, columns: Tensor) -> Tensor:
        batch = [
            torch.arange(size, device=self.device).view(-1, *(1,) * (rows.dim() - 1 - i))
            for i, size in enumerate(self.batch_shape)
        ]
        batch = [index.expand(rows.shape) for index in batch]
        return self._operator._get_indices(rows, columns, *batch)
