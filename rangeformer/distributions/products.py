"""Products of smaller or simpler matrices."""

import math

import torch

from rangeformer.distributions.kernels import random_dimension, random_kernel
from rangeformer.distributions.sampling import integer, normal, rand, uniform
from rangeformer.shapes import Tensor


def kronecker(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = B_1 (x) B_2, B_1 p x p, p = floor(sqrt(n)), cut to its leading n x n block.

    Drawn: B_1 a kernel_* of U[0, 1]; B_2 = X X^T, X q x (q + 2) Gaussian, or a kernel_* of N(0, I) in 2 dimensions.
    """
    first = max(2, int(n**0.5))
    second = math.ceil(n / first)
    one = random_kernel(rand(first, 1, generator=generator, dtype=dtype), generator)
    if integer(generator, 0, 1):
        root = normal(second, second + 2, generator=generator, dtype=dtype) / second**0.5
        two = root @ root.mT
    else:
        two = random_kernel(normal(second, 2, generator=generator, dtype=dtype), generator)
    return torch.kron(one, two)[:n, :n]


def badly_scaled(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = D K D, K a kernel_* of N(0, I), D = diag(exp(s e)): rows of very different units.

    Drawn: d ~ U_log[1, 20], s ~ U[0.3, 2].
    """
    matrix = random_kernel(normal(n, random_dimension(generator), generator=generator, dtype=dtype), generator)
    scale = (uniform(generator, 0.3, 2.0) * normal(n, generator=generator, dtype=dtype)).exp()
    return scale[:, None] * matrix * scale
