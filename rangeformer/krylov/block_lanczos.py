"""Block Lanczos with full re-orthogonalisation.

State: an orthonormal block basis V of the Krylov space of B = M A M^T started at a block of vectors, the
projection T = V^T B V, and the products A M^T V. Each step reads A once (one pass, s matvecs) and enlarges V;
V (V^T B V)^-1 V^T is the Galerkin projection of every starting vector's solution: all columns share one space, so
the block needs fewer passes than as many separate CG runs (O'Leary 1980). Small matrices are
float64; the basis keeps A's precision. Full re-orthogonalisation makes the short recurrences of T safe in float32.
"""

from collections.abc import Callable

import torch

from rangeformer.krylov.orthonormalisation import orthonormalise
from rangeformer.shapes import Float, Tensor


class BlockKrylov:
    """A growing block Krylov space of B = M A M^T and exact solutions within it.

    Args:
        product: v -> A M^T v and M of that: returns the pair `(A M^T v, M A M^T v)`.
        start: `(*batch, n, s)` starting block, not necessarily of full rank.
        capacity: Most basis vectors held; `expand` returns False once they are used up.
    """

    def __init__(
        self,
        product: Callable[[Tensor], tuple[Tensor, Tensor]],
        start: Float[Tensor, "*batch n s"],
        *,
        capacity: int,
    ):
        self._product = product
        self._capacity = capacity
        self.block_size = start.shape[-1]
        block, self.start_coefficients = orthonormalise(start)
        self._basis = start.new_empty(*start.shape[:-1], 0)
        self._images = self._basis
        self._couplings: list[Tensor] = []  # beta_j: block j+1 <- block j
        self._diagonals: list[Tensor] = []  # alpha_j
        self._pivots: list[Tensor] = []  # Cholesky factors of the block LDL^T pivots of T
        self._forward: list[Tensor] = []  # forward substitution of T c = E_1 C
        self.indefinite = torch.zeros(start.shape[:-2], dtype=torch.bool, device=start.device)
        self._positive_definite, self._goes_on = True, True
        self._ritz: tuple[Tensor, Tensor] | None = None
        self._append(block)

    @property
    def positive_definite(self) -> bool:
        """Whether every matrix of the batch has been so far; `indefinite` says which were not."""
        return self._positive_definite

    @property
    def has_solution(self) -> bool:
        """Whether the first block already showed a positive definite projection."""
        return len(self._pivots) > 0

    @property
    def num_blocks(self) -> int:
        """Steps so far: blocks in the basis, each one pass over A."""
        return len(self._diagonals)

    def expand(self) -> bool:
        """Read A once and enlarge the space.

        Returns:
            False if the space is exhausted: capacity reached, no new direction, or B not positive definite.
        """
        new, coupling = self._next
        if not self.positive_definite or self._basis.shape[-1] + self.block_size > self._capacity:
            return False
        if not self._goes_on:
            return False
        self._couplings.append(coupling)
        self._append(new)
        return self.positive_definite

    def residual_norms(self) -> Float[Tensor, "*batch s"]:
        """Norms of start - B V c for the Galerkin solution c, from s x s matrices alone."""
        last = torch.cholesky_solve(self._forward[-1], self._pivots[-1])
        return torch.linalg.vector_norm(self._next[1] @ last, dim=-2)

    def start_norms(self) -> Float[Tensor, "*batch s"]:
        """Norms of the starting columns."""
        return torch.linalg.vector_norm(self.start_coefficients, dim=-2)

    def coefficients(self) -> Float[Tensor, "*batch m s"]:
        """C with V c the Galerkin solution of B x = start, by block back substitution (float64)."""
        current = torch.cholesky_solve(self._forward[-1], self._pivots[-1])
        blocks = [current]
        for j in range(len(self._couplings) - 1, -1, -1):
            right = self._forward[j] - self._couplings[j].mT @ current
            current = torch.cholesky_solve(right, self._pivots[j])
            blocks.append(current)
        return torch.cat(blocks[::-1], -2)

    def combine(self, coefficients: Float[Tensor, "*batch m t"]) -> Float[Tensor, "*batch n t"]:
        """V @ coefficients."""
        return self._basis @ coefficients.to(self._basis.dtype)

    def combine_images(self, coefficients: Float[Tensor, "*batch m t"]) -> Float[Tensor, "*batch n t"]:
        """A M^T V @ coefficients: what A makes of a combination, without reading A."""
        return self._images @ coefficients.to(self._images.dtype)

    def projection(self) -> Float[Tensor, "*batch m m"]:
        """T = V^T B V, block tridiagonal, float64. Deflated directions carry a unit diagonal."""
        s, total = self.block_size, self.block_size * self.num_blocks
        T = self._diagonals[0].new_zeros(*self._diagonals[0].shape[:-2], total, total)
        for j, diagonal in enumerate(self._diagonals):
            here = slice(j * s, (j + 1) * s)
            T[..., here, here] = diagonal
            if j < len(self._couplings):
                below = slice((j + 1) * s, (j + 2) * s)
                T[..., below, here] = self._couplings[j]
                T[..., here, below] = self._couplings[j].mT
        return T

    def function_of_start(
        self, function: Callable[[Tensor], Tensor]
    ) -> tuple[Float[Tensor, "*batch m s"], Float[Tensor, "*batch s s"]]:
        """f(B) applied to the starting block, by block Gauss quadrature.

        Args:
            function: Applied to the Ritz values (all positive when `positive_definite`).

        Returns:
            Coefficients c with V c ~ f(B) start, and start^T f(B) start.
        """
        ritz, U = self.ritz()
        first = U[..., : self.block_size, :].mT @ self.start_coefficients
        weighted = function(ritz).unsqueeze(-1) * first
        return U @ weighted, first.mT @ weighted

    def ritz(self) -> tuple[Float[Tensor, "*batch m"], Float[Tensor, "*batch m m"]]:
        """Eigenvalues, ascending, and eigenvectors of T; computed once for each size of the space."""
        if self._ritz is None:
            values, vectors = torch.linalg.eigh(self.projection())
            self._ritz = values, vectors
        return self._ritz

    def _append(self, block: Tensor) -> None:
        self._ritz = None
        image, whitened = self._product(block)
        self._basis = torch.cat([self._basis, block], -1)
        self._images = torch.cat([self._images, image], -1)
        diagonal = (block.mT @ whitened).to(torch.float64)
        diagonal = (diagonal + diagonal.mT) / 2
        # A product that left the range of floating point ends the space as negative curvature does.
        finite = diagonal.isfinite().all(-1).all(-1).unsqueeze(-1).unsqueeze(-1)
        minus_one = -torch.eye(self.block_size, dtype=diagonal.dtype, device=diagonal.device)
        diagonal = torch.where(finite, diagonal, minus_one)
        whitened = torch.where(finite, whitened, torch.zeros_like(whitened))
        deflated = (block.square().sum(-2) == 0).to(torch.float64)
        self._diagonals.append(diagonal + torch.diag_embed(deflated))
        # Orthogonalise, normalise, and both again: normalising a nearly dependent block amplifies what rounding left
        # of the old basis in it; twice is enough (Giraud, Langou & Rozloznik 2005).
        size = torch.linalg.matrix_norm(diagonal, ord=2).unsqueeze(-1).unsqueeze(-1)
        floor = 10 * torch.finfo(block.dtype).eps * size
        first, coupling = orthonormalise(self._orthogonalise(whitened), floor=floor)
        second, correction = orthonormalise(self._orthogonalise(first), floor=0.5)
        self._next = second, correction @ coupling
        self._factorise()

    def _orthogonalise(self, block: Tensor) -> Tensor:
        return block - self._basis @ (self._basis.mT @ block)

    def _factorise(self) -> None:
        """One step of block LDL^T of T and of its forward substitution."""
        pivot = self._diagonals[-1]
        if self._couplings:
            coupling = self._couplings[-1]
            reduced = torch.cholesky_solve(coupling.mT, self._pivots[-1])
            pivot = pivot - coupling @ reduced
            forward = -coupling @ torch.cholesky_solve(self._forward[-1], self._pivots[-1])
        else:
            forward = self.start_coefficients
        cholesky, info = torch.linalg.cholesky_ex((pivot + pivot.mT) / 2)
        self.indefinite = (info > 0) | ~cholesky.isfinite().all(-1).all(-1)
        # The host waits for the device here and nowhere else in a step: both answers in one reading.
        coupled = (self._next[1].abs() > 0).any()
        indefinite, self._goes_on = torch.stack([self.indefinite.any(), coupled]).tolist()
        self._positive_definite = not indefinite
        if indefinite:
            # Keep the last sound space: drop the block that revealed it.
            if self.num_blocks > 1:
                self._diagonals.pop()
                self._next = self._basis[..., -self.block_size :], self._couplings.pop()
                self._basis = self._basis[..., : -self.block_size]
                self._images = self._images[..., : -self.block_size]
            return
        self._pivots.append(cholesky)
        self._forward.append(forward)
