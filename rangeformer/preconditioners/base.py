"""A symmetric positive definite approximation P of A, in the split form P^-1 = M^T M.

Every preconditioner of this package, learned or classical, is one object: a global factor F (n x r)
and a local factor S with S^T S ~ (A - F F^T)^-1 (`rangeformer.preconditioners.local`; diagonal for the classical ones).
With G = S F,

    M = (I + G G^T)^(-1/2) S,    log det P = sum_i log D_i + log det(I + G^T G),

both exact through an r x r eigenproblem in float64. P is SPD by construction whatever F and S are: a bad
proposal costs iterations, never correctness.
"""

import weakref
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.preconditioners.local import LocalFactor
from rangeformer.shapes import Float, Int, Tensor


@runtime_checkable
class LocalPart(Protocol):
    """What a local factor S must be able to do; two modules of this folder have one, `local` and `cholesky`."""

    neighbors: Tensor
    logdet_inverse: Tensor

    def apply(self, vectors: Tensor) -> Tensor:
        """S @ vectors."""
        ...

    def apply_transpose(self, vectors: Tensor) -> Tensor:
        """S.mT @ vectors."""
        ...


@dataclass(frozen=True)
class Structure:
    """The discrete choices behind a preconditioner, reusable for a matrix nearby.

    Attributes:
        pivots: `(*batch, c)` columns read for the global part.
        neighbors: `(*batch, n, k)` earlier rows, -1 for none.
    """

    pivots: Int[Tensor, "*batch c"]
    neighbors: Int[Tensor, "*batch n k"]


class Preconditioner:
    """P with P^-1 = M^T M.

    Args:
        factor: F, `(*batch, n, r)`; r may be 0.
        local: S.
        name: How reports call it.
        normalised_trace: `(*batch)` tr(S (A - F F^T) S^T); n when S solved its rows exactly, None if unknown.
        structure: The choices to reuse, if there are any.
        is_exact: Whether P is A up to rounding, so that P^-1 alone solves.

    Attributes:
        logdet: `(*batch)` float64, exact.
        num_columns: r.
        num_neighbors: k.
    """

    def __init__(
        self,
        factor: Float[Tensor, "*batch n r"],
        local: LocalPart,
        *,
        name: str,
        normalised_trace: Float[Tensor, "*batch"] | None = None,
        structure: Structure | None = None,
        is_exact: bool = False,
    ):
        self.name = name
        self.is_exact = is_exact
        self.local = local
        self.structure = structure
        self.num_columns = factor.shape[-1]
        self.num_neighbors = local.neighbors.shape[-1]
        self.shape = torch.Size((*factor.shape[:-1], factor.shape[-2]))
        self.dtype, self.device = factor.dtype, factor.device
        G = local.apply(factor)
        gram = G.to(torch.float64)
        eigenvalues, V = torch.linalg.eigh(gram.mT @ gram)
        # Directions below rounding level are not resolved by G; they change P by less than rounding.
        largest = eigenvalues.amax(-1, keepdim=True) if self.num_columns else eigenvalues
        resolved = eigenvalues > 100 * torch.finfo(factor.dtype).eps ** 2 * largest.clamp_min(0)
        eigenvalues = torch.where(resolved, eigenvalues, torch.zeros_like(eigenvalues))
        inverse_root = torch.where(resolved, eigenvalues, torch.ones_like(eigenvalues)).rsqrt()
        inverse_root = torch.where(resolved, inverse_root, torch.zeros_like(inverse_root))
        self._Q = (gram @ V * inverse_root.unsqueeze(-2)).to(factor.dtype)
        self._shrinkage = (1 - (1 + eigenvalues).rsqrt()).to(factor.dtype).unsqueeze(-1)
        self._removed = eigenvalues / (1 + eigenvalues)
        self.logdet = local.logdet_inverse + eigenvalues.log1p().sum(-1)
        self._source: weakref.ref[MatrixOperator] | None = None
        self._trace = None
        if normalised_trace is not None:
            self._trace = normalised_trace.to(torch.float64) + eigenvalues.sum(-1)

    def built_from(self, operator: MatrixOperator) -> "Preconditioner":
        """Remember which matrix this approximates (without keeping it alive) and return self."""
        self._source = weakref.ref(operator)
        return self

    def was_built_from(self, operator: MatrixOperator) -> bool:
        """Whether `trace_local` is that of this very operator."""
        return self._source is not None and self._source() is operator

    def whiten(self, vectors: Float[Tensor, "*batch n s"]) -> Float[Tensor, "*batch n s"]:
        """M @ vectors."""
        scaled = self.local.apply(vectors)
        return scaled - self._Q @ (self._shrinkage * (self._Q.mT @ scaled))

    def whiten_transpose(self, vectors: Float[Tensor, "*batch n s"]) -> Float[Tensor, "*batch n s"]:
        """M.mT @ vectors."""
        shrunk = vectors - self._Q @ (self._shrinkage * (self._Q.mT @ vectors))
        return self.local.apply_transpose(shrunk)

    def solve(self, vectors: Float[Tensor, "*batch n s"]) -> Float[Tensor, "*batch n s"]:
        """P^-1 @ vectors."""
        return self.whiten_transpose(self.whiten(vectors))

    def deflated_directions(self) -> Float[Tensor, "*batch n r"]:
        """Columns t_j with P^-1 = S^T S - sum_j t_j t_j^T.

        They turn tr(P^-1 A) = tr(S A S^T) - sum_j t_j^T A t_j into r matvecs.
        """
        return self.local.apply_transpose(self._Q * self._removed.sqrt().to(self._Q.dtype).unsqueeze(-2))

    def trace_local(self) -> Float[Tensor, "*batch"] | None:
        """tr(S A S^T), without reading A again; None if it is not known."""
        return self._trace

    def quadratic_of_rows(self, operator: MatrixOperator) -> Float[Tensor, "*batch n"]:
        """s_i^T A s_i for every row s_i of S, float64, with the graph back to what A is built from.

        Args:
            operator: A; S must be a `LocalFactor`.
        """
        assert isinstance(self.local, LocalFactor)
        index, values = self.local.rows()
        blocks = operator.blocks(index, index).to(torch.float64)
        values = values.to(torch.float64)
        return torch.einsum("...qi,...qij,...qj->...q", values, blocks, values)


def scaled_identity(like: Float[Tensor, "*batch n"]) -> Preconditioner:
    """P = I: no preconditioning, in the same form as all others."""
    ones = torch.ones_like(like)
    empty = ones.unsqueeze(-1)[..., :0]
    return Preconditioner(empty, LocalFactor(empty.long(), empty, ones, ones.dtype), name="none")
