"""Matrices held as one dense tensor, with an optional diagonal kept apart."""

import torch

from rangeformer.operators.base import MatrixOperator
from rangeformer.shapes import Float, Tensor

_CHUNK_ENTRIES = 1 << 24  # entries converted to float64 at a time: 128 MiB


class DenseOperator(MatrixOperator):
    """A = matrix + diag(noise), the sum never formed.

    Args:
        matrix: `(*batch, m, n)`.
        noise: `(*batch, n)` with A - diag(noise) PSD, or None.
    """

    has_entries = True

    def __init__(self, matrix: Float[Tensor, "*batch m n"], noise: Float[Tensor, "*batch n"] | None = None):
        super().__init__(matrix.shape, matrix.dtype, matrix.device)
        self.matrix = matrix
        self._noise = None if noise is None else noise.expand(*matrix.shape[:-1])

    @property
    def requires_grad(self) -> bool:
        return self.matrix.requires_grad or (self._noise is not None and self._noise.requires_grad)

    @property
    def noise(self) -> Tensor | None:
        return self._noise

    def _matmul(self, vectors: Tensor) -> Tensor:
        product = _product(self.matrix, vectors)
        if self._noise is None:
            return product
        return torch.addcmul(product, self._noise.unsqueeze(-1), vectors)

    def _rmatmul(self, vectors: Tensor) -> Tensor:
        product = _product(self.matrix.mT, vectors)
        if self._noise is None:
            return product
        return torch.addcmul(product, self._noise.unsqueeze(-1), vectors)

    def matmul_precise(self, vectors: Tensor) -> Tensor:
        if self.dtype == torch.float64:
            return self.matmul(vectors)
        self.reads.passes += 1
        self.reads.matvecs += vectors.shape[-1]
        vectors = vectors.to(torch.float64)
        rows_per_chunk = max(1, _CHUNK_ENTRIES // max(1, self.matrix[..., 0, :].numel()))
        product = torch.cat(
            [_product(rows.to(torch.float64), vectors) for rows in self.matrix.split(rows_per_chunk, -2)], -2
        )
        if self._noise is not None:
            product += self._noise.to(torch.float64).unsqueeze(-1) * vectors
        return product

    def _to_dense(self, dtype: torch.dtype) -> Tensor:
        matrix = self.matrix.to(dtype)
        return matrix if self._noise is None else matrix + torch.diag_embed(self._noise.to(dtype))

    def _columns(self, index: Tensor) -> Tensor:
        columns = _taken(self.matrix, index, -1)
        if self._noise is None:
            return columns
        at_pivots = torch.take_along_dim(self._noise, index, dim=-1).unsqueeze(-2)
        return columns.scatter_add(-2, index.unsqueeze(-2), at_pivots)

    def _rows(self, index: Tensor) -> Tensor:
        rows = _taken(self.matrix, index, -2)
        if self._noise is None:
            return rows
        at_pivots = torch.take_along_dim(self._noise, index, dim=-1).unsqueeze(-1)
        return rows.scatter_add(-1, index.unsqueeze(-1), at_pivots)

    def _diagonal(self) -> Tensor:
        diagonal = self.matrix.diagonal(dim1=-2, dim2=-1)
        return diagonal if self._noise is None else diagonal + self._noise

    def _entries(self, rows: Tensor, columns: Tensor) -> Tensor:
        flat = self.matrix.flatten(-2)
        entries = torch.take_along_dim(flat, rows * self.num_columns + columns, dim=-1)
        if self._noise is None:
            return entries
        noise = torch.take_along_dim(self._noise, rows, dim=-1)
        return entries + torch.where(rows == columns, noise, torch.zeros_like(noise))


def _product(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Matrix @ vectors, on a CPU as the transpose of V^T A^T.

    MKL is slow at products with few columns: with two to sixty this takes a third of the time, or at worst about as
    long, and for A^T down to a tenth. The copy of V costs next to nothing and keeps odd numbers of columns from losing
    again.
    """
    if matrix.device.type != "cpu":
        return matrix @ vectors
    return (vectors.mT.contiguous() @ matrix.mT).mT


def _taken(matrix: Tensor, index: Tensor, dim: int) -> Tensor:
    """Rows (-2) or columns (-1); whole ones of a single matrix are copied ten times as fast as they are gathered."""
    if matrix.ndim == 2:
        return matrix.index_select(dim, index)
    return torch.take_along_dim(matrix, index.unsqueeze(-1 if dim == -2 else -2), dim=dim)
