"""Kernels: B_ij = k(|(x_i - x_j) / l|); the cloud of inputs gives each distribution its name."""

import math
from collections.abc import Callable

import torch

from rangeformer.distributions.sampling import integer, log_uniform, normal, rand, uniform
from rangeformer.shapes import Float, Tensor

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
    """Random shape; length-scales l_a = std(x_a) sqrt(d) s exp(0.7 e), s ~ U_log[0.08, 1.5]."""
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
    """B_ij = k(|(x_i - x_j) / l|), x ~ U[0, 1]^d.

    Drawn: d ~ U_log[1, 20], k and l (as for every distribution kernel_*): k RBF, Matern 1/2, 3/2, 5/2 or rational
    quadratic; l_a = std(x_a) sqrt(d) s exp(0.7 e) in each coordinate, s ~ U_log[0.08, 1.5].
    """
    return random_kernel(rand(n, random_dimension(generator), generator=generator, dtype=dtype), generator)


def kernel_gaussian(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B_ij = k(|(x_i - x_j) / l|), x ~ N(0, C), C of decaying spectrum: correlated columns, as tables have.

    Drawn: d ~ U_log[1, 20], C = M^T diag(j^-2a) M + noise, M Gaussian, a ~ U[0, 1.5], k, l.
    """
    d = random_dimension(generator)
    mixing = normal(d, d, generator=generator, dtype=dtype) / d**0.5
    decay = torch.arange(1, d + 1, dtype=dtype, device=generator.device).pow(-uniform(generator, 0.0, 1.5))
    points = (normal(n, d, generator=generator, dtype=dtype) * decay) @ mixing
    return random_kernel(points + 0.3 * normal(n, d, generator=generator, dtype=dtype) * decay.min(), generator)


def kernel_clustered(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B_ij = k(|(x_i - x_j) / l|), x = m_z + s_z e: clusters of different widths and, by squared uniforms, sizes.

    Drawn: d ~ U_log[1, 20], 2..20 clusters, m ~ N(0, I), s = exp(e - 1.5), k, l.
    """
    d, count = random_dimension(generator), integer(generator, 2, 20)
    centres = normal(count, d, generator=generator, dtype=dtype)
    widths = (normal(count, generator=generator, dtype=dtype) - 1.5).exp()
    member = (count * rand(n, generator=generator, dtype=dtype).square()).long().clamp_max(count - 1)
    points = centres[member] + widths[member, None] * normal(n, d, generator=generator, dtype=dtype)
    return random_kernel(points, generator)


def kernel_grid(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B_ij = k(|(x_i - x_j) / l|), x the nodes of a regular grid, n of them in random order.

    Drawn: d in 1..3, k, l.
    """
    d = integer(generator, 1, 3)
    side = math.ceil(n ** (1 / d))
    axis = torch.arange(side, dtype=dtype, device=generator.device)
    points = torch.stack(torch.meshgrid(*[axis] * d, indexing="ij"), dim=-1).reshape(-1, d)
    chosen = torch.randperm(len(points), generator=generator, device=generator.device)[:n]
    return random_kernel(points[chosen], generator)


def kernel_discretised(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B_ij = k(|(x_i - x_j) / l|), x ~ N(0, I), every other coordinate rounded to few levels: many x coincide.

    Drawn: d ~ U_log[1, 20], rounded to multiples of 4 / q, q in 2..20, k, l.
    """
    d = random_dimension(generator)
    points = normal(n, d, generator=generator, dtype=dtype)
    for axis in range(0, d, 2):
        levels = integer(generator, 2, 20)
        points[:, axis] = (points[:, axis] * levels / 4).round()
    return random_kernel(points, generator)


def kernel_manifold(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B_ij = k(|(x_i - x_j) / l|), x = tanh(u W) V + 0.02 e, u ~ N(0, I): a curved surface.

    Drawn: d ~ U_log[1, 20], u of 1..4 dimensions, W to 16 and V to d of Gaussian entries, k, l.
    """
    d, inner = random_dimension(generator), integer(generator, 1, 4)
    u = normal(n, inner, generator=generator, dtype=dtype)
    bent = torch.tanh(u @ normal(inner, 16, generator=generator, dtype=dtype))
    points = bent @ normal(16, d, generator=generator, dtype=dtype)
    return random_kernel(points + 0.02 * normal(n, d, generator=generator, dtype=dtype), generator)


def kernel_heavy_tailed(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B_ij = k(|(x_i - x_j) / l|), x = e exp(0.8 e'), coordinate by coordinate: dense cores, far outliers.

    Drawn: d ~ U_log[1, 20], k, l.
    """
    d = random_dimension(generator)
    spread = (0.8 * normal(n, d, generator=generator, dtype=dtype)).exp()
    return random_kernel(normal(n, d, generator=generator, dtype=dtype) * spread, generator)


def kernel_periodic(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B_ij = exp(-2 sin^2(pi (t_i - t_j)) / l^2) k(|t_i - t_j| / m), k Matern 3/2, t uniform on some periods.

    Drawn: 1..10 periods, l ~ U_log[0.2, 2], m ~ U_log[0.5, 10].
    """
    t = rand(n, 1, generator=generator, dtype=dtype) * uniform(generator, 1, 10)
    circle = torch.cat([(2 * torch.pi * t).cos(), (2 * torch.pi * t).sin()], dim=1)
    length = log_uniform(generator, 0.2, 2)
    # |circle_i - circle_j|^2 = 4 sin^2(pi (t_i - t_j))
    return kernel_matrix(circle / length, "rbf") * kernel_matrix(t / log_uniform(generator, 0.5, 10), "matern32")


def kernel_warped(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = diag(a) (G o K) diag(a), G Gibbs' nonstationary kernel of one coordinate, K a kernel_* of others.

    G_ij = sqrt(2 l_i l_j / (l_i^2 + l_j^2)) exp(-(x_i - x_j)^2 / (l_i^2 + l_j^2)) (Gibbs 1997), l = c exp(sin 3x).

    Drawn: x ~ N(0, 1), c ~ U_log[0.02, 0.5], K of N(0, I) in 1..4 dimensions, a = exp(0.5 e).
    """
    x = normal(n, generator=generator, dtype=dtype)
    lengths = log_uniform(generator, 0.02, 0.5) * (3 * x).sin().exp()
    squares = lengths.square()[:, None] + lengths.square()
    gibbs = (2 * lengths[:, None] * lengths / squares).sqrt() * (-(x[:, None] - x).square() / squares).exp()
    other = random_kernel(normal(n, integer(generator, 1, 4), generator=generator, dtype=dtype), generator)
    amplitude = (0.5 * normal(n, generator=generator, dtype=dtype)).exp()
    return amplitude[:, None] * gibbs * other * amplitude


def rbf_line(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B_ij = exp(-(x_i - x_j)^2 / (2 l^2)) + s [i = j], x ~ U[0, 10].

    Drawn: l ~ U_log[0.3, 3], s ~ U[0.1, 1].
    """
    points = 10 * rand(n, 1, generator=generator, dtype=dtype)
    matrix = kernel_matrix(points / log_uniform(generator, 0.3, 3), "rbf")
    matrix.diagonal().add_(uniform(generator, 0.1, 1))
    return matrix
