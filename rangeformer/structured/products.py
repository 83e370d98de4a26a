"""Products of smaller or simpler matrices."""

import math

import torch

from rangeformer.shapes import Tensor
from rangeformer.structured.kernels import random_dimension, random_kernel
from rangeformer.structured.sampling import integer, normal, rand, uniform


def kronecker(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = (B1 x B2), cut to its leading n x n block: B1 a kernel on a line, B2 a Wishart or kernel matrix."""
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
    """B = D K D, K a kernel of Gaussian points, D = diag(exp(s e)), s in 0.3..2: rows of very different units."""
    matrix = random_kernel(normal(n, random_dimension(generator), generator=generator, dtype=dtype), generator)
    scale = (uniform(generator, 0.3, 2.0) * normal(n, generator=generator, dtype=dtype)).exp()
    return scale[:, None] * matrix * scale
