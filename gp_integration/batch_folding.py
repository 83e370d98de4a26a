"""Right-hand sides with more batch dimensions than the matrix: extra dimensions become columns."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchFold:
    """How the batch dimensions of right-hand sides `(*full, n, k)` are folded for a matrix `(*batch, n, n)`.

    One factorisation or preconditioner then serves every right-hand side that shares a matrix.

    Attributes:
        batch: Batch shape of the matrix.
        full: Batch shape of the result, the broadcast of both.
        columns: k.
    """

    batch: torch.Size
    full: torch.Size
    columns: int

    @classmethod
    def of(cls, batch: torch.Size, rhs: Tensor) -> "BatchFold":
        """The fold for a right-hand side of shape `(*any, n, k)`; raises if the shapes do not broadcast."""
        return cls(batch, torch.broadcast_shapes(batch, rhs.shape[:-2]), rhs.shape[-1])

    @property
    def trivial(self) -> bool:
        """Whether nothing is folded."""
        return self.full == self.batch

    def fold(self, rhs: Tensor) -> Tensor:
        """`(*any, n, k)` to `(*batch, n, extra * k)`."""
        rhs = rhs.expand(*self.full, *rhs.shape[-2:])
        kept, folded = self._split()
        rank = len(self.full)
        return rhs.permute(*kept, rank, *folded, rank + 1).reshape(*self.batch, rhs.shape[-2], -1)

    def unfold(self, solution: Tensor) -> Tensor:
        """`(*batch, n, extra * k)` back to `(*full, n, k)`."""
        kept, folded = self._split()
        n = solution.shape[-2]
        shape = [self.full[i] for i in kept] + [n] + [self.full[i] for i in folded] + [self.columns]
        order = [*kept, len(self.full), *folded, len(self.full) + 1]
        inverse = [order.index(i) for i in range(len(order))]
        return solution.reshape(shape).permute(inverse)

    def _split(self) -> tuple[list[int], list[int]]:
        padded = (1,) * (len(self.full) - len(self.batch)) + tuple(self.batch)
        folded = [i for i, (own, full) in enumerate(zip(padded, self.full, strict=True)) if own != full]
        return [i for i in range(len(self.full)) if i not in folded], folded
