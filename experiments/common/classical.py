"""The classical iterations that learned answers are held against, written plainly: CG per column, Lanczos, quadrature.

None of them has a stopping rule: a caller gives a number of steps, which is the price. Lanczos re-orthogonalises
against its whole basis, twice, so that its Ritz values are those of exact arithmetic.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CGRun:
    """Where CG stopped, and the residual norms on its way, which need not fall at every step."""

    solution: Tensor  # (n, k), the last iterate: of the least error in A's norm
    smallest: Tensor  # (n, k), the iterate of the smallest residual, zero among them
    relative_residuals: Tensor  # (steps + 1, k), recursive, the first row is one


def conjugate_gradients(
    matmul: Product,
    rhs: Tensor,
    num_steps: int,
    apply_preconditioner: Product | None = None,
    *,
    until: float = 0.0,
) -> CGRun:
    """Hestenes & Stiefel's recurrence for every column of `rhs` (n, k): each step is one pass and k products.

    A column that has become exact, or meets a direction without positive curvature, stays as it is; all stop early once
    every residual is below `until`.
    """
    precondition = (lambda v: v) if apply_preconditioner is None else apply_preconditioner
    x, residual = torch.zeros_like(rhs), rhs.clone()
    size = torch.linalg.vector_norm(rhs, dim=0)
    size = torch.where(size > 0, size, torch.ones_like(size))
    preconditioned = precondition(residual)
    direction, energy = preconditioned, (residual * preconditioned).sum(0)
    history = [torch.linalg.vector_norm(residual, dim=0) / size]
    smallest, least = x, history[0]
    for _ in range(num_steps):
        image = matmul(direction)
        curvature = (direction * image).sum(0)
        moves = (energy > 0) & (curvature > 0) & torch.isfinite(energy / curvature)
        if not bool(moves.any()) or bool((history[-1] <= until).all()):
            break
        step = torch.where(moves, energy / curvature, torch.zeros_like(energy))
        x, residual = x + step * direction, residual - step * image
        preconditioned = precondition(residual)
        fresh = (residual * preconditioned).sum(0)
        direction = preconditioned + torch.where(moves, fresh / energy, torch.zeros_like(fresh)) * direction
        energy = torch.where(moves, fresh, torch.zeros_like(fresh))
        history.append(torch.linalg.vector_norm(residual, dim=0) / size)
        smallest = torch.where(history[-1] < least, x, smallest)
        least = torch.minimum(history[-1], least)
    return CGRun(x, smallest, torch.stack(history))


def jacobi(diagonal: Tensor) -> Product:
    """V -> diag(A)^-1 v for the diagonal of A; entries that are not positive are left alone."""
    scale = torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal)).reciprocal()
    return lambda vectors: scale.unsqueeze(-1) * vectors


def steps_to(run: CGRun, rtol: float) -> Tensor:
    """Steps until each column's residual reaches `rtol`, (k,), interpolated in its logarithm.

    A ruler finer than whole steps.

    Columns that never get there count all steps.
    """
    logs = run.relative_residuals.clamp_min(torch.finfo(run.relative_residuals.dtype).tiny).log()
    target = torch.log(torch.tensor(rtol, dtype=logs.dtype))
    num_steps = len(logs) - 1
    reached = logs <= target
    first = torch.where(reached.any(0), reached.double().argmax(0), num_steps)
    before = (first - 1).clamp_min(0)
    above, below = (logs.gather(0, index.unsqueeze(0))[0] for index in (before, first))
    fraction = ((above - target) / (above - below)).clamp(0, 1)
    return torch.where(reached.any(0) & (first > 0), before + fraction, first.to(logs.dtype))


@dataclass(frozen=True)
class Quadrature:
    """Nodes and weights that stand for v^T f(A) v / v^T v of one starting vector."""

    nodes: Tensor  # (m,) ascending Ritz values
    weights: Tensor  # (m,) sum to one


def lanczos(matmul: Product, start: Tensor, num_steps: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Basis and symmetric tridiagonal projection after `num_steps` products with A from `start` (n,).

    When the Krylov space is exhausted (repeated eigenvalues), it goes on from a random vector orthogonal to all of it,
    with a zero coupling, so that n steps always give all n eigenvalues.

    Returns:
        V (n, m) orthonormal and T (m, m), m = min(num_steps, n).
    """
    n = len(start)
    num_steps = min(num_steps, n)
    V = start.new_zeros(n, num_steps)
    T = start.new_zeros(num_steps, num_steps)
    vector, coupling, size = start / torch.linalg.vector_norm(start), 0.0, 0.0
    for j in range(num_steps):
        V[:, j] = vector
        if j > 0:
            T[j, j - 1] = T[j - 1, j] = coupling
        image = matmul(vector.unsqueeze(-1)).squeeze(-1)
        T[j, j] = vector @ image
        size = max(size, float(torch.linalg.vector_norm(image)))
        rest = _outside(image, V[:, : j + 1])
        coupling = float(torch.linalg.vector_norm(rest))
        if coupling <= n * torch.finfo(start.dtype).eps * size:
            rest = _outside(torch.randn(n, generator=generator, dtype=start.dtype), V[:, : j + 1])
            coupling = 0.0
        vector = rest / torch.linalg.vector_norm(rest).clamp_min(torch.finfo(start.dtype).tiny)
        vector = _outside(vector, V[:, : j + 1])
        vector = vector / torch.linalg.vector_norm(vector).clamp_min(torch.finfo(start.dtype).tiny)
    return V, T


def quadrature(matmul: Product, start: Tensor, num_steps: int, *, generator: torch.Generator) -> Quadrature:
    """Gauss quadrature of A's spectral measure at `start` (Golub & Meurant 2010, ch. 6)."""
    _, T = lanczos(matmul, start, num_steps, generator=generator)
    nodes, vectors = torch.linalg.eigh(T)
    return Quadrature(nodes, vectors[0].square())


def lanczos_eigenvalues(
    matmul: Product, n: int, num_steps: int, *, generator: torch.Generator, num_probes: int = 1
) -> Tensor:
    """All n eigenvalues, ascending: Ritz values after n steps, else quantiles of the spectral density.

    With fewer steps than rows there are too few Ritz values for all eigenvalues; then the j-th is read off the
    distribution function of `num_probes` averaged quadratures at (j - 1/2) / n (Lin, Saad & Yang, SIAM Review 2016).
    """
    if num_steps >= n:
        _, T = lanczos(matmul, _gaussian(n, generator), n, generator=generator)
        return torch.linalg.eigvalsh(T)
    rules = [quadrature(matmul, _gaussian(n, generator), num_steps, generator=generator) for _ in range(num_probes)]
    nodes, order = torch.cat([rule.nodes for rule in rules]).sort()
    mass = torch.cat([rule.weights for rule in rules])[order].cumsum(0) / num_probes
    at = (torch.arange(n, dtype=nodes.dtype) + 0.5) / n
    return nodes[torch.searchsorted(mass, at).clamp_max(len(nodes) - 1)]


def lanczos_logdet(
    matmul: Product, n: int, num_steps: int, *, generator: torch.Generator, num_probes: int = 1
) -> Tensor:
    """Log det A: exact after n steps, else stochastic Lanczos quadrature (Ubaru, Chen & Saad, SIMAX 2017).

    NaN where a Ritz value is not positive.
    """
    if num_steps >= n:
        return lanczos_eigenvalues(matmul, n, n, generator=generator).log().sum()
    rules = [quadrature(matmul, _gaussian(n, generator), num_steps, generator=generator) for _ in range(num_probes)]
    return n * torch.stack([(rule.weights * rule.nodes.log()).sum() for rule in rules]).mean()


def _outside(vector: Tensor, basis: Tensor) -> Tensor:
    for _ in range(2):
        vector = vector - basis @ (basis.mT @ vector)
    return vector


def _gaussian(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, generator=generator, dtype=torch.float64)
