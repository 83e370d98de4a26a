"""Leading eigenpairs of a symmetric matrix.

A range and its Rayleigh quotient (Halko, Martinsson & Tropp 2011, Algorithm 5.3).
"""

from typing import Any

import torch

from rangeformer.randomness import SKETCH, generator_or_default
from rangeformer.validation import check_count, check_square, check_symmetric
from sketching.algorithms.error_estimate import check_finite, draw_test_vectors
from sketching.arguments import as_sketch, check_rank, draw_sketch, one_matrix, rows_allowed
from sketching.results import Eigen
from sketching.scaled_operator import ScaledOperator, restored
from sketching.sketches import Sketch


def randomized_eigh(
    A: Any,
    rank: int,
    *,
    num_oversamples: int = 10,
    num_power_iterations: int = 1,
    sketch: str | Sketch = "rangeformer",
    max_rows: int | None = None,
    generator: torch.Generator | None = None,
) -> Eigen:
    """The eigenpairs of largest magnitude of a symmetric A.

    Args:
        A: `(n, n)` symmetric, anything `rangeformer.as_operator` reads.
        rank: Pairs wanted, at most n.
        num_oversamples: Extra sketch columns.
        num_power_iterations: Re-orthonormalised multiplications by A, one pass each, before the quotient's own.
        sketch: As for `randomized_svd`.
        max_rows: As for `randomized_svd`.
        generator: Source of all randomness; a fixed one if None.

    Returns:
        The pairs in A's dtype with an estimate of the error; unpacks to `eigenvalues, eigenvectors`.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: Wrong value of an argument; A not square, symmetric or finite.

    Example:
        >>> import torch, sketching
        >>> w, V = sketching.randomized_eigh(torch.diag(torch.tensor([1.0, -5.0, 3.0, 0.0])), 2)
        >>> [round(x, 4) for x in w.tolist()]
        [-5.0, 3.0]
    """
    operator = ScaledOperator(one_matrix(A))
    check_square(operator)
    check_rank(operator, rank)
    check_count("num_oversamples", num_oversamples, least=0)
    check_count("num_power_iterations", num_power_iterations, least=0)
    distribution, allowed = as_sketch(sketch), rows_allowed(operator, rank, max_rows)
    generator = generator_or_default(generator, SKETCH)
    before = operator.reads.snapshot()
    with torch.no_grad():
        check_symmetric(operator)
        size = min(rank + num_oversamples, operator.num_rows)
        omega = draw_sketch(operator, distribution, size, allowed, generator)
        tests = draw_test_vectors(operator, generator)
        image, test_images = operator.matmul(torch.cat([omega, tests], -1)).tensor_split([size], -1)
        check_finite(image)
        for _ in range(num_power_iterations):
            image = operator.matmul(torch.linalg.qr(image).Q)
        Q = torch.linalg.qr(image).Q
        quotient = (Q.mT @ operator.matmul(Q)).to(torch.float64)
        values, vectors = torch.linalg.eigh((quotient + quotient.mT) / 2)
        order = values.abs().argsort(descending=True)[:rank]
        values, basis = values[order], Q @ vectors[:, order].to(Q.dtype)
        # the error itself on the test vectors, no identity of norms: A need not be definite
        error = (test_images - basis @ (values.to(Q.dtype).unsqueeze(-1) * (basis.mT @ tests))).to(torch.float64)
        total = test_images.to(torch.float64).square().sum()
    reads = operator.reads.since(before)
    return Eigen(
        eigenvalues=restored(values, operator.exponent, Q.dtype, "Eigenvalues"),
        eigenvectors=basis,
        relative_error=float((error.square().sum() / total).sqrt()) if bool(total > 0) else 0.0,
        num_passes=reads.passes,
        num_matvecs=reads.matvecs,
        num_entries=reads.entries,
    )
