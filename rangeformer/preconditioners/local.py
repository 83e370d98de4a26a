"""The local half of the preconditioner: a sparse approximate inverse factor, row by row.

For the residual R and neighbours N(i) earlier in an order, row i of S holds
(-w_i at N(i), 1 at i) / sqrt(D_i) with R[N,N] w_i = R[N,i] and D_i = R_ii - w_i^T R[N,i], so S^T S ~ R^-1:
factorised sparse approximate inverse (Kolotilina & Yeremin 1993), equal to Vecchia's approximation of a
Gaussian process (1988). The small systems are solved in float64 whatever A's precision.
"""

import torch
import torch.nn.functional as nnf

from rangeformer.operators import MatrixOperator
from rangeformer.preconditioners.neighbors import gather_rows
from rangeformer.shapes import Float, Int, Tensor

_CHUNK = 1 << 24  # gathered numbers held at a time


class LocalFactor:
    """S, with S v and S^T v as fused gather-and-sum kernels.

    Args:
        neighbors: `(*batch, n, k)` rows, -1 for none; k may be 0 (then S is diagonal).
        weights: `(*batch, n, k)` the w_i, zero where there is no neighbour.
        variances: `(*batch, n)` the D_i, positive.
        dtype: Precision in which S is applied.
    """

    def __init__(
        self,
        neighbors: Int[Tensor, "*batch n k"],
        weights: Float[Tensor, "*batch n k"],
        variances: Float[Tensor, "*batch n"],
        dtype: torch.dtype,
    ):
        self.neighbors = neighbors
        self.weights = weights.to(dtype)
        self.inverse_scale = variances.rsqrt().to(dtype)
        self.logdet_inverse = variances.to(torch.float64).log().sum(-1)  # log det (S^T S)^-1
        n, k = neighbors.shape[-2:]
        if k == 0:
            return
        count = neighbors.reshape(-1, n, k).shape[0]
        offset = torch.arange(count, device=neighbors.device).view(-1, 1, 1) * n
        # All batch elements form one block-diagonal factor; absent neighbours point at row 0 with weight 0.
        self._index = (neighbors.clamp_min(0).reshape(-1, n, k) + offset).reshape(-1, k)
        self._flat_weights = self.weights.reshape(-1, k).contiguous()
        targets = self._index.reshape(-1)
        by_target = torch.argsort(targets, stable=True)
        self._reverse_index = by_target // k
        self._reverse_weights = self._flat_weights.reshape(-1)[by_target]
        every_row = torch.arange(count * n, device=neighbors.device)
        self._reverse_start = torch.searchsorted(targets[by_target], every_row)

    def apply(self, vectors: Float[Tensor, "*batch n s"]) -> Float[Tensor, "*batch n s"]:
        """S @ vectors."""
        if self.neighbors.shape[-1] > 0 and vectors.shape[-1] > 0:
            flat = vectors.reshape(self._index.shape[0], vectors.shape[-1])
            conditioned = nnf.embedding_bag(self._index, flat, per_sample_weights=self._flat_weights, mode="sum")
            vectors = vectors - conditioned.view_as(vectors)
        return vectors * self.inverse_scale.unsqueeze(-1)

    def apply_transpose(self, vectors: Float[Tensor, "*batch n s"]) -> Float[Tensor, "*batch n s"]:
        """S.mT @ vectors."""
        vectors = vectors * self.inverse_scale.unsqueeze(-1)
        if self.neighbors.shape[-1] == 0 or vectors.shape[-1] == 0:
            return vectors
        flat = vectors.reshape(self._index.shape[0], vectors.shape[-1])
        conditioned = nnf.embedding_bag(
            self._reverse_index,
            flat,
            self._reverse_start,
            per_sample_weights=self._reverse_weights,
            mode="sum",
        )
        return vectors - conditioned.view_as(vectors)

    def rows(self) -> tuple[Tensor, Tensor]:
        """The support and values of every row of S, for exact derivatives of tr(S A S^T).

        Returns:
            index `(*batch, n, k + 1)` (an absent neighbour points at the row itself, value 0) and
            values `(*batch, n, k + 1)`.
        """
        n = self.neighbors.shape[-2]
        own = torch.arange(n, device=self.neighbors.device).expand(self.neighbors.shape[:-1])
        own = own.unsqueeze(-1)
        index = torch.cat([torch.where(self.neighbors < 0, own, self.neighbors), own], -1)
        values = (
            torch.cat([-self.weights, torch.ones_like(self.weights[..., :1])], -1)
            if (self.weights.shape[-1])
            else torch.ones_like(self.inverse_scale).unsqueeze(-1)
        )
        return index, values * self.inverse_scale.unsqueeze(-1)


def diagonal_factor(variances: Float[Tensor, "*batch n"]) -> LocalFactor:
    """S = diag(variances)^(-1/2): no neighbours."""
    empty = variances.unsqueeze(-1)[..., :0]
    return LocalFactor(empty.long(), empty, variances, variances.dtype)


def local_factor(
    operator: MatrixOperator,
    factor: Float[Tensor, "*batch n c"],
    neighbors: Int[Tensor, "*batch n k"],
    residual_diagonal: Float[Tensor, "*batch n"],
) -> LocalFactor:
    """Solve every row's small system exactly.

    Args:
        operator: A, with entry access; n k (k + 1) of its entries are read.
        factor: F of the global part, `(*batch, n, c)`.
        neighbors: `(*batch, n, k)` earlier rows, -1 for none.
        residual_diagonal: `(*batch, n)` diagonal of R = A - F F^T, positive.

    Returns:
        The factor S. A row whose small system is not positive definite (an A that is not PSD, or rounding)
        conditions on no other row: S stays well defined.
    """
    n, k = neighbors.shape[-2:]
    if k == 0:
        return diagonal_factor(residual_diagonal)
    count = max(1, neighbors[..., 0, 0].numel())
    rows_per_chunk = max(1, _CHUNK // max(1, count * k * max(k, factor.shape[-1])))
    weights, variances = [], []
    for start in range(0, n, rows_per_chunk):
        part = neighbors[..., start : start + rows_per_chunk, :]
        own = torch.arange(start, start + part.shape[-2], device=part.device)
        own = own.expand(part.shape[:-1])
        w, d = conditional_weights(operator, factor, part, residual_diagonal, own)
        weights.append(w)
        variances.append(d)
    return LocalFactor(neighbors, torch.cat(weights, -2), torch.cat(variances, -1), operator.dtype)


def conditional_weights(
    operator: MatrixOperator,
    factor: Float[Tensor, "*batch n c"],
    neighbors: Int[Tensor, "*batch q k"],
    residual_diagonal: Float[Tensor, "*batch n"],
    rows: Int[Tensor, "*batch q"],
) -> tuple[Float[Tensor, "*batch q k"], Float[Tensor, "*batch q"]]:
    """w_i and D_i of q chosen rows, in float64: the best linear prediction of each row from its neighbours.

    Args:
        operator: A, with entry access.
        factor: F, `(*batch, n, c)`.
        neighbors: `(*batch, q, k)` rows to condition on, -1 for none.
        residual_diagonal: `(*batch, n)` diagonal of R = A - F F^T, positive.
        rows: `(*batch, q)` the rows i.
    """
    present = neighbors >= 0
    safe = neighbors.clamp_min(0)
    tokens = gather_rows(factor, safe)
    own_tokens = gather_rows(factor, rows.unsqueeze(-1))
    block = (operator.blocks(safe, safe) - tokens @ tokens.mT).to(torch.float64)
    cross = operator.blocks(safe, rows.unsqueeze(-1)) - tokens @ own_tokens.mT
    cross = torch.where(present, cross.squeeze(-1), torch.zeros_like(cross[..., 0])).to(torch.float64)
    identity = torch.eye(safe.shape[-1], dtype=torch.float64, device=safe.device)
    both = present.unsqueeze(-1) & present.unsqueeze(-2)
    block = torch.where(both, block, identity)
    cholesky, info = torch.linalg.cholesky_ex(block)
    own_variance = torch.take_along_dim(residual_diagonal, rows, -1).to(torch.float64)
    half = torch.linalg.solve_triangular(cholesky, cross.unsqueeze(-1), upper=False)
    weights = torch.linalg.solve_triangular(cholesky.mT, half, upper=True).squeeze(-1)
    variance = own_variance - half.square().sum((-1, -2))
    # Conditioning can only lower a variance; at or below rounding level of it the row's system is unusable.
    floor = 100 * torch.finfo(operator.dtype).eps * own_variance
    usable = (info == 0) & (variance > floor) & weights.isfinite().all(-1)
    weights = torch.where(usable.unsqueeze(-1), weights, torch.zeros_like(weights))
    return weights, torch.where(usable, variance, own_variance)
