"""Discretised differential equations: finite differences and linear finite elements, with jumps and anisotropy."""

import math

import torch

from rangeformer.distributions.beams import gram_of_elements
from rangeformer.distributions.graphs import precision_or_covariance
from rangeformer.distributions.sampling import log_uniform, rand, uniform
from rangeformer.shapes import Float, Tensor


def stencil(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = L + a I or its inverse, L = five-point -div(kappa grad) on a grid cut to n nodes.

    Drawn: kappa jumps by U_log[1, 1e3] over a random half-plane, times U_log[1, 1e2] in y; a as for graph_laplacian.
    """
    side = math.ceil(n**0.5)
    row, column = torch.meshgrid(*[torch.arange(side, device=generator.device)] * 2, indexing="ij")
    inside = (
        row * uniform(generator, -1, 1) + column * uniform(generator, -1, 1) > side * uniform(generator, -0.5, 0.5)
    ).reshape(-1)
    conductivity = torch.where(inside, log_uniform(generator, 1, 1e3), 1.0).to(dtype)
    number = torch.arange(side * side, device=generator.device).reshape(side, side)
    weights = torch.zeros(side * side, side * side, dtype=dtype, device=generator.device)
    anisotropy = log_uniform(generator, 1, 100)
    for first, second, factor in (
        (number[:-1].reshape(-1), number[1:].reshape(-1), anisotropy),
        (number[:, :-1].reshape(-1), number[:, 1:].reshape(-1), 1.0),
    ):
        # harmonic mean: the flux through the face between two cells
        edge = factor * 2 / (1 / conductivity[first] + 1 / conductivity[second])
        weights[first, second] = edge
        weights[second, first] = edge
    laplacian = (torch.diag(weights.sum(1)) - weights)[:n, :n]
    return precision_or_covariance(laplacian, generator)


def triangles(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = K + s M, K_ij = int kappa grad(phi_i)^T D grad(phi_j), M_ij = int phi_i phi_j, phi_i linear on triangles.

    Two triangles in each cell of a jittered grid; the last row of nodes is fixed (Dirichlet), other edges are free.

    Drawn: kappa jumps by U_log[1e-3, 1e3] over a random half-plane, D of eigenvalues 1 and U_log[1, 1e3] in a random
    direction, s mean(M) / mean(K) ~ U_log[1e-6, 1e-1], jitter 0.25.
    """
    device = generator.device
    side = math.ceil(n**0.5)
    height = math.ceil(n / side) + 1
    number = torch.arange(height * side, device=device).reshape(height, side)
    points = torch.stack([number.remainder(side), number // side], dim=-1).reshape(-1, 2).to(dtype)
    points = points + 0.25 * (2 * rand(*points.shape, generator=generator, dtype=dtype) - 1)
    low, right, up, far = (x.reshape(-1) for x in (number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]))
    corners = torch.cat([torch.stack([low, right, up], dim=1), torch.stack([right, far, up], dim=1)])
    area, gradients = linear_elements(points[corners])
    angle, stretch = uniform(generator, 0, math.pi), log_uniform(generator, 1, 1e3) ** 0.5
    turned = torch.tensor(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle) * stretch, math.cos(angle) * stretch]],
        dtype=dtype,
        device=device,
    )
    centre = points[corners].mean(1) @ torch.tensor([math.cos(angle), math.sin(angle)], dtype=dtype, device=device)
    inside = centre > centre.mean() + centre.std() * uniform(generator, -1, 1)
    conductivity = torch.ones(len(corners), dtype=dtype, device=device)
    conductivity[inside] = log_uniform(generator, 1e-3, 1e3)
    stiffness_rows = (conductivity * area).sqrt()[:, None, None] * (turned @ gradients)
    # three midpoints integrate products of two linear functions exactly
    midpoints = torch.tensor([[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]], dtype=dtype, device=device)
    mass_rows = (area / 3).sqrt()[:, None, None] * midpoints
    stiffness = gram_of_elements(stiffness_rows, corners, number.numel(), n)
    mass = gram_of_elements(mass_rows, corners, number.numel(), n)
    scale = stiffness.diagonal().mean() / mass.diagonal().mean()
    return stiffness + scale * log_uniform(generator, 1e-6, 1e-1) * mass


def linear_elements(corners: Float[Tensor, "t 3 2"]) -> tuple[Float[Tensor, " t"], Float[Tensor, "t 2 3"]]:
    """Areas of triangles, and the gradients of their three linear basis functions as columns."""
    opposite = corners.roll(-2, 1) - corners.roll(-1, 1)
    double_area = opposite[:, 0, 0] * opposite[:, 1, 1] - opposite[:, 0, 1] * opposite[:, 1, 0]
    turned = torch.stack([-opposite[..., 1], opposite[..., 0]], dim=1)
    return double_area.abs() / 2, turned / double_area[:, None, None]


def plate(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = L^T diag(kappa) L, L = five-point Laplacian of a grid (y weighted by a), its leading n columns: bent plates.

    Drawn: a ~ U_log[1, 10], kappa jumps once by U_log[1e-3, 1e3].
    """
    side = math.ceil(n**0.5)
    line = second_difference(side, generator.device, dtype)
    identity = torch.eye(side, dtype=dtype, device=generator.device)
    laplacian = torch.kron(log_uniform(generator, 1, 10) * line, identity) + torch.kron(identity, line)
    conductivity = torch.ones(side * side, dtype=dtype, device=generator.device)
    conductivity[int(side * side * uniform(generator, 0, 1)) :] = log_uniform(generator, 1e-3, 1e3)
    rows = conductivity.sqrt().unsqueeze(-1) * laplacian[:, :n]
    return rows.mT @ rows


def second_difference(size: int, device: torch.device, dtype: torch.dtype, velocity: float = 0.0) -> Tensor:
    """Tridiagonal (-1 - max(v, 0), 2 + |v|, -1 - max(-v, 0)): -u'' + v u' by upwind differences, fixed ends."""
    matrix = torch.zeros(size, size, dtype=dtype, device=device)
    matrix.diagonal().fill_(2 + abs(velocity))
    matrix.diagonal(-1).fill_(-1 - max(velocity, 0))
    matrix.diagonal(1).fill_(-1 - max(-velocity, 0))
    return matrix
