"""Prescribed spectra in random orthonormal bases.

The distributions `decay_*` are the training spectra of "Understanding and Relaxing the Limitations of Transformers for
Linear Algebra": B = Q diag(d(x_1), ..., d(x_n)) Q^T with x equidistant from 0 to 1. The signs of Q's columns cancel, so
that Q of a Gaussian matrix's QR factorisation is as good as Haar's.
"""

import math

import torch

from rangeformer.distributions.sampling import integer, log_uniform, normal, rand, uniform
from rangeformer.shapes import Tensor


def spectral_decay(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = Q diag(d) Q^T, Q Haar, d_j = j^-a, or exp(-b j / n), or 1 / (1 + exp((j - c n) / (w n))).

    Drawn: which, a ~ U[0.3, 2], b ~ U_log[2, 200], c ~ U[0.02, 0.5], w ~ U_log[1e-3, 0.2].
    """
    basis, _ = torch.linalg.qr(normal(n, n, generator=generator, dtype=dtype))
    j = torch.arange(1, n + 1, dtype=dtype, device=generator.device)
    kind = integer(generator, 0, 2)
    if kind == 0:
        values = j.pow(-uniform(generator, 0.3, 2.0))
    elif kind == 1:
        values = (-log_uniform(generator, 2, 200) * j / n).exp()
    else:
        values = torch.sigmoid(-(j - n * uniform(generator, 0.02, 0.5)) / (n * log_uniform(generator, 1e-3, 0.2)))
    return (basis * values) @ basis.mT


def low_rank(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = G diag(d) G^T + 1e-2 diag(u), G n x r of Gaussian entries, d_j = j^-a, u ~ U[0, 1].

    Drawn: r ~ U_log[2, n / 4], a ~ U[0, 2].
    """
    rank = max(2, int(log_uniform(generator, 2, max(3, n / 4))))
    basis = normal(n, rank, generator=generator, dtype=dtype)
    values = torch.arange(1, rank + 1, dtype=dtype, device=generator.device).pow(-uniform(generator, 0, 2))
    return (basis * values) @ basis.mT + 1e-2 * torch.diag(rand(n, generator=generator, dtype=dtype))


def _in_random_basis(values: Tensor, generator: torch.Generator) -> Tensor:
    n = len(values)
    basis, _ = torch.linalg.qr(normal(n, n, generator=generator, dtype=values.dtype))
    return (basis * values) @ basis.mT


def _grid(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    return torch.linspace(0, 1, n, dtype=dtype, device=generator.device)


def decay_power(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = Q diag(d) Q^T, Q Haar, d_j = 1 - x_j^a, x = 0, ..., 1 equidistant.

    Drawn: a ~ U[0, 5].
    """
    return _in_random_basis(1 - _grid(n, generator, dtype).pow(uniform(generator, 0, 5)), generator)


def decay_cosine(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = Q diag(d) Q^T, Q Haar, d_j = (1 + cos(pi x_j)) / 2, x = 0, ..., 1 equidistant: a raised cosine.

    Drawn: Q.
    """
    return _in_random_basis((1 + (torch.pi * _grid(n, generator, dtype)).cos()) / 2, generator)


def decay_logistic(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = Q diag(d) Q^T, Q Haar, d_j = 1 / (1 + exp(a (x_j - 1/2))), x = 0, ..., 1 equidistant.

    Drawn: a ~ U_log[0.3, 30].
    """
    return _in_random_basis(
        torch.sigmoid(-log_uniform(generator, 0.3, 30) * (_grid(n, generator, dtype) - 0.5)), generator
    )


def decay_logarithm(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = Q diag(d) Q^T, Q Haar, d_j = 1 - log(1 + a x_j) / log(1 + a), x = 0, ..., 1 equidistant.

    Drawn: a ~ U_log[1, 1e3].
    """
    a = log_uniform(generator, 1, 1e3)
    return _in_random_basis(1 - (a * _grid(n, generator, dtype)).log1p() / math.log1p(a), generator)


def decay_ramp(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = Q diag(d) Q^T, Q Haar, d_j = max(1 - x_j / c, 1e-4), x = 0, ..., 1 equidistant: a ramp, then noise.

    Drawn: c ~ U[0.1, 1].
    """
    values = (1 - _grid(n, generator, dtype) / uniform(generator, 0.1, 1)).clamp_min(1e-4)
    return _in_random_basis(values, generator)
