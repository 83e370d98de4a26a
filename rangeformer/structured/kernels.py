"""Kernels: B_ij = k(|(x_i - x_j) / l|); the cloud of inputs gives each law its name."""

import math
from collections.abc import Callable

import torch

from rangeformer.shapes import Float, Tensor
from rangeformer.structured.sampling import integer, log_uniform, normal, rand, uniform

SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "rbf": lambda r: (-r.square() / 2).exp(),
    "matern12": lambda r: (-r).exp(),
    "matern32": lambda r: (1 + 3**0.5 * r) * (-(3**0.5) * r).exp(),
    "matern52": lambda r: (1 + 5**0.5 * r + 5 * r.square() / 3) * (-(5**0.5) * r).exp(),
    "rational_quadratic": lambda r: 1 / (1 + r.square() / 2),
}


def kernel_matrix(points: Float[Tensor, "n d"], shape: str) -> Float[Tensor, "n n"]:
    """k(|x_i - x_j|) for a key of `SHAPES`, points already divided by their length-scales."""
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    return SHAPES[shape](distance)


def random_kernel(points: Tensor, generator: torch.Generator) -> Tensor:
    """Random shape; ARD length-scales l_a = median-like distance x U_log[0.08, 1.5] x lognormal(0.7)."""
    n, d = points.shape
    # the deviation of a single point is not a number
    spread = points.std(0).clamp_min(1e-12) if n > 1 else torch.ones_like(points[0])
    points = (points - points.mean(0)) / spread
    scales = log_uniform(generator, 0.08, 1.5) * d**0.5
    anisotropy = (0.7 * normal(d, generator=generator, dtype=points.dtype)).exp()
    names = list(SHAPES)
    return kernel_matrix(points / (scales * anisotropy), names[integer(generator, 0, len(names) - 1)])


def random_dimension(generator: torch.Generator) -> int:
    """Log-uniform in 1..20."""
    return min(20, int(log_uniform(generator, 1, 21)))


def kernel_uniform(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Points x ~ U[0, 1]^d."""
    return random_kernel(rand(n, random_dimension(generator), generator=generator, dtype=dtype), generator)


def kernel_gaussian(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Points x ~ N(0, C), C random with decaying spectrum: correlated columns, as tables of measurements have."""
    d = random_dimension(generator)
    mixing = normal(d, d, generator=generator, dtype=dtype) / d**0.5
    decay = torch.arange(1, d + 1, dtype=dtype, device=generator.device).pow(-uniform(generator, 0.0, 1.5))
    points = (normal(n, d, generator=generator, dtype=dtype) * decay) @ mixing
    return random_kernel(points + 0.3 * normal(n, d, generator=generator, dtype=dtype) * decay.min(), generator)


def kernel_clustered(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Points x = m_z + s_z e: 2..20 clusters of different widths and, by squared uniforms, different sizes."""
    d, count = random_dimension(generator), integer(generator, 2, 20)
    centres = normal(count, d, generator=generator, dtype=dtype)
    widths = (normal(count, generator=generator, dtype=dtype) - 1.5).exp()
    member = (count * rand(n, generator=generator, dtype=dtype).square()).long().clamp_max(count - 1)
    points = centres[member] + widths[member, None] * normal(n, d, generator=generator, dtype=dtype)
    return random_kernel(points, generator)


def kernel_grid(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Points of a regular grid in 1..3 dimensions, the first n in random order."""
    d = integer(generator, 1, 3)
    side = math.ceil(n ** (1 / d))
    axis = torch.arange(side, dtype=dtype, device=generator.device)
    points = torch.stack(torch.meshgrid(*[axis] * d, indexing="ij"), dim=-1).reshape(-1, d)
    chosen = torch.randperm(len(points), generator=generator, device=generator.device)[:n]
    return random_kernel(points[chosen], generator)


def kernel_discretised(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Gaussian points of which half the coordinates are rounded to 2..20 levels, so many coincide."""
    d = random_dimension(generator)
    points = normal(n, d, generator=generator, dtype=dtype)
    for axis in range(0, d, 2):
        levels = integer(generator, 2, 20)
        points[:, axis] = (points[:, axis] * levels / 4).round()
    return random_kernel(points, generator)


def kernel_manifold(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Points x = tanh(u W) V + 0.02 e on a curved surface of 1..4 dimensions in up to 20."""
    d, inner = random_dimension(generator), integer(generator, 1, 4)
    u = normal(n, inner, generator=generator, dtype=dtype)
    bent = torch.tanh(u @ normal(inner, 16, generator=generator, dtype=dtype))
    points = bent @ normal(16, d, generator=generator, dtype=dtype)
    return random_kernel(points + 0.02 * normal(n, d, generator=generator, dtype=dtype), generator)


def kernel_heavy_tailed(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Points x = e exp(0.8 e'), coordinate by coordinate: dense cores, far outliers."""
    d = random_dimension(generator)
    spread = (0.8 * normal(n, d, generator=generator, dtype=dtype)).exp()
    return random_kernel(normal(n, d, generator=generator, dtype=dtype) * spread, generator)


def kernel_periodic(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B_ij = exp(-2 sin^2(pi (t_i - t_j)) / l^2) k(|t_i - t_j| / m), t uniform on 1..10 periods."""
    t = rand(n, 1, generator=generator, dtype=dtype) * uniform(generator, 1, 10)
    circle = torch.cat([(2 * torch.pi * t).cos(), (2 * torch.pi * t).sin()], dim=1)
    length = log_uniform(generator, 0.2, 2)
    # |circle_i - circle_j|^2 = 4 sin^2(pi (t_i - t_j))
    return kernel_matrix(circle / length, "rbf") * kernel_matrix(t / log_uniform(generator, 0.5, 10), "matern32")


def kernel_warped(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Gibbs' nonstationary kernel in one dimension times a stationary one in others, rows scaled by exp(0.5 e).

    B_ij = sqrt(2 l_i l_j / (l_i^2 + l_j^2)) exp(-(x_i - x_j)^2 / (l_i^2 + l_j^2)) (Gibbs 1997),
    l = a exp(sin 3x).
    """
    x = normal(n, generator=generator, dtype=dtype)
    lengths = log_uniform(generator, 0.02, 0.5) * (3 * x).sin().exp()
    squares = lengths.square()[:, None] + lengths.square()
    gibbs = (2 * lengths[:, None] * lengths / squares).sqrt() * (-(x[:, None] - x).square() / squares).exp()
    other = random_kernel(normal(n, integer(generator, 1, 4), generator=generator, dtype=dtype), generator)
    amplitude = (0.5 * normal(n, generator=generator, dtype=dtype)).exp()
    return amplitude[:, None] * gibbs * other * amplitude


def rbf_line(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B_ij = exp(-(x_i - x_j)^2 / (2 l^2)) + s delta_ij, x ~ U[0, 10], l ~ U_log[0.3, 3], s ~ U[0.1, 1]."""
    points = 10 * rand(n, 1, generator=generator, dtype=dtype)
    matrix = kernel_matrix(points / log_uniform(generator, 0.3, 3), "rbf")
    matrix.diagonal().add_(uniform(generator, 0.1, 1))
    return matrix
