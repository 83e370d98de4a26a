"""Matrices that are einsums of small factors (Kronecker, low rank, tensor train, block tensor train, Monarch).

Builders return an unsymmetric X of size n; the distributions `einsum_*` are their Gram matrices B = X X^T. Indices are
split by a random factorisation of n. A prime has none: its product is made larger than n and cut to its leading block.
A fifth of every factor's entries, chosen at random, is zero.

Sources: the training distributions of "Understanding and Relaxing the Limitations of Transformers for Linear Algebra";
Monarch: Dao et al. 2022, arXiv 2204.00595, eq. 1; block tensor train: Qiu et al. 2024, "Compute Better Spent", arXiv
2406.06248, section 3.
"""

import math
from collections.abc import Callable

import torch

from rangeformer.distributions.sampling import integer, normal, rand
from rangeformer.shapes import Float, Tensor

ZEROS = 0.2
"""Share of zeros in every factor."""


def factorisation(n: int, parts: int, generator: torch.Generator) -> list[int]:
    """Sizes p_1, ..., p_parts of product n, or a little more than n where a prime has to be split."""
    sizes = []
    for _ in range(parts - 1):
        divisors = [p for p in range(2, n) if n % p == 0] or list(range(2, math.isqrt(n) + 1)) or [n]
        sizes.append(divisors[integer(generator, 0, len(divisors) - 1)])
        n = math.ceil(n / sizes[-1])
    return [*sizes, n]


def sparse_factor(*shape: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Standard Gaussian entries, each zero with probability `ZEROS`."""
    kept = rand(*shape, generator=generator, dtype=dtype) >= ZEROS
    return normal(*shape, generator=generator, dtype=dtype) * kept


def kronecker_product(n: int, generator: torch.Generator, dtype: torch.dtype) -> Float[Tensor, "n n"]:
    """X = F (x) G, F p x p, G q x q, n = p q.

    Drawn: the factorisation, Gaussian entries of which a fifth is zero.
    """
    p, q = factorisation(n, 2, generator)
    first = sparse_factor(p, p, generator=generator, dtype=dtype)
    return torch.kron(first, sparse_factor(q, q, generator=generator, dtype=dtype))[:n, :n]


def low_rank_product(n: int, generator: torch.Generator, dtype: torch.dtype) -> Float[Tensor, "n n"]:
    """X = U V^T, U and V n x r.

    Drawn: r in 1..n/2, Gaussian entries of which a fifth is zero.
    """
    rank = integer(generator, 1, max(1, n // 2))
    left = sparse_factor(n, rank, generator=generator, dtype=dtype)
    return left @ sparse_factor(n, rank, generator=generator, dtype=dtype).mT


def tensor_train(n: int, generator: torch.Generator, dtype: torch.dtype) -> Float[Tensor, "n n"]:
    """X_{(i1 i2 ..), (j1 j2 ..)} = sum_{a, b, ..} F_{i1 j1 a} G_{a i2 j2 b} ..., n = p_1 p_2 ...

    Drawn: 2 or 3 cores of ranks 2..4, the factorisation, Gaussian entries of which a fifth is zero.
    """
    modes, rank = factorisation(n, integer(generator, 2, 3), generator), integer(generator, 2, 4)
    product = torch.ones(1, 1, 1, dtype=dtype, device=generator.device)
    for place, mode in enumerate(modes):
        right = 1 if place == len(modes) - 1 else rank
        core = sparse_factor(product.shape[2], mode, mode, right, generator=generator, dtype=dtype)
        size = product.shape[0] * mode
        product = torch.einsum("ija,aklb->ikjlb", product, core).reshape(size, size, right)
    return product[:n, :n, 0]


def two_stage(
    sizes: tuple[int, int], rank: int, generator: torch.Generator, dtype: torch.dtype
) -> Float[Tensor, "m m"]:
    """X_{(i j), (k l)} = sum_s L_{l i j s} R_{k l i s}, i, l < q and j, k < p: block (i, l) over (j, k) has rank r."""
    p, q = sizes
    left = sparse_factor(q, q, p, rank, generator=generator, dtype=dtype)
    right = sparse_factor(p, q, q, rank, generator=generator, dtype=dtype)
    return torch.einsum("lijs,klis->ijkl", left, right).reshape(p * q, p * q)


def block_tensor_train(n: int, generator: torch.Generator, dtype: torch.dtype) -> Float[Tensor, "n n"]:
    """X_{(i j), (k l)} = sum_{s <= r} L_{lijs} R_{klis}, i, l < q, j, k < p, n = p q.

    Drawn: r in 2..3, the factorisation, Gaussian entries of which a fifth is zero.
    """
    p, q = factorisation(n, 2, generator)
    return two_stage((p, q), integer(generator, 2, 3), generator, dtype)[:n, :n]


def monarch(n: int, generator: torch.Generator, dtype: torch.dtype) -> Float[Tensor, "n n"]:
    """X_{(i j), (k l)} = L_{lij} R_{kli}, i, l < q, j, k < p, n = p q: every (i, l) block has rank one.

    Drawn: the factorisation, Gaussian entries of which a fifth is zero.
    """
    p, q = factorisation(n, 2, generator)
    return two_stage((p, q), 1, generator, dtype)[:n, :n]


Builder = Callable[[int, torch.Generator, torch.dtype], Tensor]


def _gram(build: Builder, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """X X^T, of the first X that is not zero: at n = 2 or 3 the random zeros may take every entry."""
    matrix = build(n, generator, dtype)
    while not matrix.any():
        matrix = build(n, generator, dtype)
    return matrix @ matrix.mT


def einsum_kronecker(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = X X^T, X = F (x) G, F p x p, G q x q, n = p q.

    Drawn: the factorisation, Gaussian entries of which a fifth is zero.
    """
    return _gram(kronecker_product, n, generator, dtype)


def einsum_low_rank(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = X X^T, X = U V^T, U and V n x r.

    Drawn: r in 1..n/2, Gaussian entries of which a fifth is zero.
    """
    return _gram(low_rank_product, n, generator, dtype)


def einsum_tensor_train(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = X X^T, X_{(i1 i2 ..), (j1 j2 ..)} = sum_{a, b, ..} F_{i1 j1 a} G_{a i2 j2 b} ..., n = p_1 p_2 ...

    Drawn: 2 or 3 cores of ranks 2..4, the factorisation, Gaussian entries of which a fifth is zero.
    """
    return _gram(tensor_train, n, generator, dtype)


def einsum_block_tensor_train(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = X X^T, X_{(i j), (k l)} = sum_{s <= r} L_{lijs} R_{klis}, i, l < q, j, k < p, n = p q.

    Drawn: r in 2..3, the factorisation, Gaussian entries of which a fifth is zero.
    """
    return _gram(block_tensor_train, n, generator, dtype)


def einsum_monarch(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = X X^T, X_{(i j), (k l)} = L_{lij} R_{kli}, i, l < q, j, k < p, n = p q.

    Drawn: the factorisation, Gaussian entries of which a fifth is zero.
    """
    return _gram(monarch, n, generator, dtype)
