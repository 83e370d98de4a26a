"""Distributions of symmetric indefinite matrices, each a function of (n, generator, dtype)."""

import math

import torch

from rangeformer.distributions.einsum import factorisation
from rangeformer.distributions.elements import second_difference
from rangeformer.distributions.patterns import hankel_of
from rangeformer.distributions.sampling import integer, laplace, log_uniform, normal, rand, uniform
from rangeformer.shapes import Tensor


def wigner(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A = (X + X^T) / 2, X of independent entries: eigenvalues fill a semicircle.

    Drawn: entries Gaussian, Laplace, U[-1, 1] or random signs.
    """
    kind = integer(generator, 0, 3)
    if kind == 0:
        entries = normal(n, n, generator=generator, dtype=dtype)
    elif kind == 1:
        entries = laplace(n, n, generator=generator, dtype=dtype)
    else:
        entries = 2 * rand(n, n, generator=generator, dtype=dtype) - 1
        entries = torch.where(entries < 0, -1.0, 1.0).to(dtype) if kind == 3 else entries
    return (entries + entries.mT) / 2


def signed_spectrum(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A = Q diag(s_j j^-a) Q^T, Q Haar, s_j random signs: decaying eigenvalues on both sides of zero.

    Drawn: a ~ U[0, 3], a share of U[0, 1/2] of negative signs.
    """
    values = torch.arange(1, n + 1, dtype=dtype, device=generator.device).pow(-uniform(generator, 0, 3))
    negative = rand(n, generator=generator, dtype=dtype) < uniform(generator, 0, 0.5)
    basis, _ = torch.linalg.qr(normal(n, n, generator=generator, dtype=dtype))
    return (basis * torch.where(negative, -values, values)) @ basis.mT


def symmetric_toeplitz(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A_ij = c_|i-j|, c_k = e (1 + k)^-a.

    Drawn: a ~ U[0, 2].
    """
    index = torch.arange(n, device=generator.device)
    column = normal(n, generator=generator, dtype=dtype) * (1 + index).to(dtype).pow(-uniform(generator, 0, 2))
    return column[(index[:, None] - index).abs()]


def hankel(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A_ij = h_{i + j}, h_k = e exp(-a k / n).

    Drawn: a ~ U[0, 5].
    """
    lag = torch.arange(2 * n - 1, dtype=dtype, device=generator.device)
    decay = (-uniform(generator, 0, 5) * lag / n).exp()
    return hankel_of(normal(2 * n - 1, generator=generator, dtype=dtype) * decay)


def adjacency(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A_ij = 1 where i and j are linked, else 0: a graph of points within a radius, or of independent links.

    Drawn: the kind; points in [0, 1]^2 with radius sqrt(d / (pi n)), or links of probability d / n; d ~ U_log[2, 10].
    """
    degree = log_uniform(generator, 2, 10)
    if integer(generator, 0, 1):
        points = rand(n, 2, generator=generator, dtype=dtype)
        distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        linked = distance < math.sqrt(degree / (math.pi * n))
    else:
        linked = rand(n, n, generator=generator, dtype=dtype) < degree / n
    upper = linked.to(dtype).triu(1)
    return upper + upper.mT


def saddle_point(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A = [[H, C^T], [C, -t I]], H = diag(exp(s e)) + G G^T / r positive definite, C sparse Gaussian: a KKT system.

    Drawn: a share of U[0.5, 0.85] of unknowns, s ~ U[0, 3], G with r in 1..8 columns, C half zero, t ~ U_log[1e-8,
    1e-2].
    """
    unknowns = min(n - 1, max(1, int(n * uniform(generator, 0.5, 0.85))))
    rank = integer(generator, 1, 8)
    root = normal(unknowns, rank, generator=generator, dtype=dtype) / rank**0.5
    diagonal = (uniform(generator, 0, 3) * normal(unknowns, generator=generator, dtype=dtype)).exp()
    constraints = normal(n - unknowns, unknowns, generator=generator, dtype=dtype)
    constraints = constraints * (rand(n - unknowns, unknowns, generator=generator, dtype=dtype) < 0.5)
    matrix = torch.zeros(n, n, dtype=dtype, device=generator.device)
    matrix[:unknowns, :unknowns] = root @ root.mT + torch.diag(diagonal)
    matrix[unknowns:, :unknowns] = constraints
    matrix[:unknowns, unknowns:] = constraints.mT
    matrix.diagonal()[unknowns:] = -log_uniform(generator, 1e-8, 1e-2)
    return matrix


def symmetric_kronecker(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A = F (x) G, F p x p and G q x q of symmetric Gaussian entries, n = p q (cut to n x n where n is prime).

    Drawn: the factorisation.
    """
    p, q = factorisation(n, 2, generator)
    first = normal(p, p, generator=generator, dtype=dtype)
    second = normal(q, q, generator=generator, dtype=dtype)
    return torch.kron(first + first.mT, second + second.mT)[:n, :n]


def helmholtz(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A = L - k^2 I, L the five-point Laplacian of a grid with fixed edges, cut to n nodes: waves of number k.

    Drawn: k^2 ~ U[0.1, 4].
    """
    side = math.ceil(n**0.5)
    line = second_difference(side, generator.device, dtype)
    identity = torch.eye(side, dtype=dtype, device=generator.device)
    laplacian = (torch.kron(line, identity) + torch.kron(identity, line))[:n, :n]
    return laplacian - uniform(generator, 0.1, 4) * torch.eye(n, dtype=dtype, device=generator.device)
