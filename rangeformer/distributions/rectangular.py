"""Distributions of rectangular matrices, for sketches and least squares: functions of (m, n, generator, dtype)."""

import math

import torch

from rangeformer.distributions.kernels import SHAPES
from rangeformer.distributions.sampling import integer, log_uniform, normal, rand, uniform
from rangeformer.shapes import Float, Tensor


def smooth_field(m: int, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A_ij = f(i / m, j / n), f(x) = sum_k a_k cos(2 pi (w_k . x + u_k)) + sum_l h_l [v_l . x > c_l]: waves and edges.

    Drawn: 4..16 waves, w = f e, f ~ U_log[0.5, 5], a = e; 0..6 edges of random direction, h = e.
    """
    rows = torch.arange(m, dtype=dtype, device=generator.device) / m
    columns = torch.arange(n, dtype=dtype, device=generator.device) / n
    return field_with_edges(rows, columns, generator)


def field_with_edges(
    rows: Float[Tensor, " m"], columns: Float[Tensor, " n"], generator: torch.Generator
) -> Float[Tensor, "m n"]:
    """The random field of `smooth_field` at all pairs of coordinates."""
    dtype = rows.dtype
    roughness = log_uniform(generator, 0.5, 5)
    field = torch.zeros(len(rows), len(columns), dtype=dtype, device=rows.device)
    for _ in range(integer(generator, 4, 16)):
        down, right, height = normal(3, generator=generator, dtype=dtype)
        phase = uniform(generator, 0, 1)
        along = roughness * (down * rows[:, None] + right * columns)
        field = field + height * (2 * torch.pi * (along + phase)).cos()
    for _ in range(integer(generator, 0, 6)):
        angle, row, column = uniform(generator, 0, 2 * math.pi), uniform(generator, 0, 1), uniform(generator, 0, 1)
        side = math.cos(angle) * (rows[:, None] - row) + math.sin(angle) * (columns - column)
        field = field + normal(1, generator=generator, dtype=dtype) * (side > 0)
    return field


def image_patches(m: int, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A_ij = I(r_i + p_j) - mean over j: m patches of n pixels p_j of an image I of waves, edges and texture 0.1 e.

    Drawn: I as for smooth_field, of ceil(sqrt(m)) + ceil(sqrt(n)) pixels a side; corners r uniform.
    """
    side, range_ = math.ceil(n**0.5), math.ceil(m**0.5)
    axis = torch.arange(side + range_, dtype=dtype, device=generator.device) / (side + range_)
    image = field_with_edges(axis, axis, generator)
    image = image + 0.1 * normal(*image.shape, generator=generator, dtype=dtype)
    row, column = torch.randint(0, range_ + 1, (2, m, 1), generator=generator, device=generator.device)
    pixel = torch.arange(n, device=generator.device)
    patches = image[row + pixel // side, column + pixel % side]
    return patches - patches.mean(1, keepdim=True)


def word_counts(m: int, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A_ij ~ Poisson(l_i sum_t theta_it phi_tj), phi_tj ~ j^-a exp(1.5 e), theta_it ~ exp(2 e), rows of sum one.

    Words j by rank (Zipf), documents i of length l_i, topics t.

    Drawn: a ~ U[0.8, 1.3], 2..10 topics, l = b exp(0.7 e), b ~ U_log[20, 500].
    """
    topics = integer(generator, 2, 10)
    zipf = torch.arange(1, n + 1, dtype=dtype, device=generator.device).pow(-uniform(generator, 0.8, 1.3))
    words = zipf * (1.5 * normal(topics, n, generator=generator, dtype=dtype)).exp()
    mixture = (2 * normal(m, topics, generator=generator, dtype=dtype)).softmax(1)
    lengths = log_uniform(generator, 20, 500) * (0.7 * normal(m, 1, generator=generator, dtype=dtype)).exp()
    return torch.poisson(lengths * (mixture @ (words / words.sum(1, keepdim=True))), generator=generator)


def clustered_rows(m: int, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A_i = c_z + s e: rows near 2..20 centres c ~ N(0, I), of different frequencies by squared uniforms.

    Drawn: number of centres, s ~ U_log[1e-2, 1].
    """
    count = integer(generator, 2, 20)
    centres = normal(count, n, generator=generator, dtype=dtype)
    member = (count * rand(m, generator=generator, dtype=dtype).square()).long().clamp_max(count - 1)
    return centres[member] + log_uniform(generator, 1e-2, 1) * normal(m, n, generator=generator, dtype=dtype)


def low_rank_plus_noise(m: int, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A = U V^T / sqrt(r) + s E, U m x r, V n x r and E of independent N(0, 1).

    Drawn: r ~ U_log[1, min(m, n) / 4], s ~ U_log[1e-3, 1].
    """
    rank = max(1, int(log_uniform(generator, 1, max(2, min(m, n) / 4))))
    left, right = (normal(size, rank, generator=generator, dtype=dtype) for size in (m, n))
    noise = log_uniform(generator, 1e-3, 1) * normal(m, n, generator=generator, dtype=dtype)
    return left @ right.mT / rank**0.5 + noise


def haar_decay(m: int, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A = U diag(j^-a) V^T, U and V Haar: the negative control, which no sketch can know before it has read A.

    Drawn: a ~ U[0.3, 2].
    """
    size = min(m, n)
    left, right = (torch.linalg.qr(normal(rows, size, generator=generator, dtype=dtype)).Q for rows in (m, n))
    values = torch.arange(1, size + 1, dtype=dtype, device=generator.device).pow(-uniform(generator, 0.3, 2))
    return (left * values) @ right.mT


def sparse_rows(m: int, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A_ij = t_i e where kept, else 0; whole rows are empty, t_i = exp(s e) else.

    Drawn: entries kept with probability U_log[0.02, 0.3], empty rows with U[0.1, 0.5], s ~ U[0, 1.5].
    """
    kept = rand(m, n, generator=generator, dtype=dtype) < log_uniform(generator, 0.02, 0.3)
    full = rand(m, 1, generator=generator, dtype=dtype) >= uniform(generator, 0.1, 0.5)
    scales = (uniform(generator, 0, 1.5) * normal(m, 1, generator=generator, dtype=dtype)).exp()
    return scales * normal(m, n, generator=generator, dtype=dtype) * kept * full


def cross_kernel(m: int, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A_ij = k(|x_i - y_j| / l), x and y uniform in [0, 1]^d: rows of a covariance between two sets of points.

    Drawn: k one of the kernels' shapes, d in 1..3, l ~ U_log[0.1, 2].
    """
    d = integer(generator, 1, 3)
    left, right = (rand(size, d, generator=generator, dtype=dtype) for size in (m, n))
    distance = torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist")
    names = list(SHAPES)
    shape = SHAPES[names[integer(generator, 0, len(names) - 1)]]
    return shape(distance / log_uniform(generator, 0.1, 2))
