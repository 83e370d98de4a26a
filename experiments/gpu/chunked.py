"""A Matern-3/2 kernel matrix that need never be stored: products, entries and derivatives by blocks of rows.

GPyTorch's CG and ours are given the very same operator, so that they differ in what they do with it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from linear_operator.operators import LinearOperator
from torch import Tensor

_CHUNK_BYTES = {"cpu": 1 << 26, "cuda": 1 << 29}
_SQUARED_FLOOR = 1e-12  # of distances: the derivative of a square root at zero does not exist


@dataclass(frozen=True)
class Stored:
    """The matrix itself, where it fits; hidden from what the operator is differentiated by."""

    matrix: Tensor | None  # (n, n)


class ChunkedKernel(LinearOperator):
    """K_ij = scale (1 + sqrt(3) d_ij) exp(-sqrt(3) d_ij), d the distance of two rows of `inputs`.

    Args:
        inputs: `(n, d)`, divided by the length-scales.
        scale: `()`.
        stored: K, used for products, or nothing.
    """

    def __init__(self, inputs: Tensor, scale: Tensor, stored: Stored = Stored(None)):  # noqa: B008 - frozen
        super().__init__(inputs, scale, stored=stored)
        self.inputs, self.scale, self.stored = inputs, scale, stored

    def rows(self, start: int, stop: int) -> Tensor:
        """K[start:stop], computed."""
        return matern32(self.inputs[start:stop], self.inputs, self.scale)

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Ends of the blocks of rows."""
        n = len(self.inputs)
        size = max(1, _CHUNK_BYTES[self.inputs.device.type] // (n * self.inputs.element_size()))
        return ((start, min(start + size, n)) for start in range(0, n, size))

    @torch.no_grad()
    def computed(self, dtype: torch.dtype | None = None) -> Tensor:
        """All of K as one tensor, (n, n)."""
        n = len(self.inputs)
        K = torch.empty(n, n, dtype=dtype or self.inputs.dtype, device=self.inputs.device)
        for start, stop in self.chunks():
            K[start:stop] = self.rows(start, stop)
        return K

    def weighted_gradient(self, weights: Any) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of sum_ij W_ij K_ij with respect to inputs and scale, block by block.

        Args:
            weights: Called with (start, stop), the rows W[start:stop].
        """
        leaves = [part.detach().requires_grad_(part.requires_grad) for part in (self.inputs, self.scale)]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        totals = [torch.zeros_like(leaf) for leaf in wanted]
        for start, stop in self.chunks() if wanted else ():
            with torch.enable_grad():
                value = (weights(start, stop) * matern32(leaves[0][start:stop], *leaves)).sum()
            for total, gradient in zip(totals, torch.autograd.grad(value, wanted), strict=True):
                total += gradient
        found = iter(totals)
        first, second = (next(found) if leaf.requires_grad else None for leaf in leaves)
        return first, second

    def _matmul(self, rhs: Tensor) -> Tensor:
        if self.stored.matrix is not None:
            return self.stored.matrix @ rhs
        with torch.no_grad():
            return torch.cat([self.rows(start, stop) @ rhs for start, stop in self.chunks()])

    def _bilinear_derivative(self, left_vecs: Tensor, right_vecs: Tensor) -> tuple[Tensor | None, ...]:
        left, right = (v.unsqueeze(-1) if v.dim() == 1 else v for v in (left_vecs, right_vecs))
        return self.weighted_gradient(lambda start, stop: left[start:stop] @ right.mT)

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        row_index, col_index = torch.broadcast_tensors(row_index, col_index)
        squared = (self.inputs[row_index] - self.inputs[col_index]).square().sum(-1)
        return self.scale * _profile(squared)

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> Any:
        # whole rows, as the pivoted Cholesky factorisation reads them
        return torch.as_tensor(matern32(self.inputs[row_index], self.inputs[col_index], self.scale))

    def _diagonal(self) -> Tensor:
        return self.scale.expand(len(self.inputs))

    def _size(self) -> torch.Size:
        return torch.Size((len(self.inputs), len(self.inputs)))

    def _transpose_nonbatch(self) -> "ChunkedKernel":
        return type(self)(self.inputs, self.scale, stored=self.stored)


def matern32(left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    """The kernel between the rows of two tables, (p, q)."""
    squared = left.square().sum(-1, keepdim=True) - 2 * left @ right.mT + right.square().sum(-1)
    return scale * _profile(squared)


def _profile(squared: Tensor) -> Tensor:
    distance = math.sqrt(3) * squared.clamp_min(_SQUARED_FLOOR).sqrt()
    return (1 + distance) * torch.exp(-distance)
