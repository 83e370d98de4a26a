"""Nystrom approximations of positive semidefinite matrices: from products, or from pivoted columns.

- `nystrom`: A Omega (Omega^T A Omega)^+ (A Omega)^T, stabilised by a shift (Tropp, Yurtsever, Udell & Cevher,
"Fixed-rank
  approximation of a positive-semidefinite matrix from streaming data", 2017, Algorithm 3): one pass.
- `pivoted_nystrom`: randomly pivoted Cholesky (Chen, Epperly, Tropp & Webber 2025, Algorithm 1), no pass at all.
"""

from typing import Any

import torch

from rangeformer.preconditioners.pivoted import pivoted_cholesky
from rangeformer.randomness import SKETCH, generator_or_default
from rangeformer.shapes import Float, Tensor
from rangeformer.validation import check_count, check_square, check_symmetric
from sketching.algorithms.error_estimate import check_finite, draw_test_vectors
from sketching.arguments import as_sketch, check_rank, draw_sketch, one_matrix, rows_allowed
from sketching.results import Eigen
from sketching.scaled_operator import ScaledOperator, restored
from sketching.sketches import Sketch


def nystrom(
    A: Any,
    rank: int,
    *,
    num_oversamples: int = 10,
    sketch: str | Sketch = "rangeformer",
    max_rows: int | None = None,
    generator: torch.Generator | None = None,
) -> Eigen:
    """Leading eigenpairs of a positive semidefinite A from one pass.

    Args:
        A: `(n, n)` symmetric positive semidefinite, anything `rangeformer.as_operator` reads.
        rank: Pairs wanted, at most n.
        num_oversamples: Extra sketch columns.
        sketch: As for `randomized_svd`.
        max_rows: As for `randomized_svd`.
        generator: Source of all randomness; a fixed one if None.

    Returns:
        The pairs, eigenvalues not negative, with an estimate of the error.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: Wrong value of an argument; A not square, symmetric, finite or positive semidefinite.

    Example:
        >>> import torch, sketching
        >>> w, V = sketching.nystrom(torch.diag(torch.tensor([5.0, 3.0, 1e-3, 0.0])), 2)
        >>> [round(x, 3) for x in w.tolist()]
        [5.0, 3.0]
    """
    operator = ScaledOperator(one_matrix(A))
    check_square(operator)
    check_rank(operator, rank)
    check_count("num_oversamples", num_oversamples, least=0)
    distribution, allowed = as_sketch(sketch), rows_allowed(operator, rank, max_rows)
    generator = generator_or_default(generator, SKETCH)
    before = operator.reads.snapshot()
    with torch.no_grad():
        check_symmetric(operator)
        size = min(rank + num_oversamples, operator.num_rows)
        omega = torch.linalg.qr(draw_sketch(operator, distribution, size, allowed, generator)).Q
        tests = draw_test_vectors(operator, generator)
        image, test_images = operator.matmul(torch.cat([omega, tests], -1)).tensor_split([size], -1)
        check_finite(image)
        factor = _factor(omega.to(torch.float64), image.to(torch.float64), operator.dtype)
        return _eigen(operator, factor, rank, before, tests, test_images)


def pivoted_nystrom(
    A: Any,
    rank: int,
    *,
    num_columns: int | None = None,
    generator: torch.Generator | None = None,
) -> Eigen:
    """Leading eigenpairs of a positive semidefinite A from its diagonal and a few columns.

    Args:
        A: `(n, n)` symmetric positive semidefinite with entries to read.
        rank: Pairs wanted, at most n.
        num_columns: Columns read. Default: 3 rank, which is within a per cent of the best on kernels.
        generator: Source of the pivots; a fixed one if None.

    Returns:
        The pairs; `relative_error` is in the nuclear norm, tr(A - V diag(w) V^T) / tr(A), and exact for the factor
        before truncation.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: Wrong value of an argument; A not square or without entry access.
    """
    operator = ScaledOperator(one_matrix(A))
    check_square(operator)
    check_rank(operator, rank)
    check_count("num_columns", num_columns, least=rank, optional=True)
    if not operator.has_entries:
        raise ValueError("`A` must have entries to read. Got products alone; use `nystrom`.")
    generator = generator_or_default(generator, SKETCH)
    before = operator.reads.snapshot()
    with torch.no_grad():
        count = min(3 * rank if num_columns is None else num_columns, operator.num_rows)
        found = pivoted_cholesky(operator, count, generator=generator)
        U, S, _ = torch.linalg.svd(found.factor.to(torch.float64), full_matrices=False)
        trace = float(found.diagonal.to(torch.float64).sum())
        left = float(found.residual_diagonal.to(torch.float64).sum() + S[rank:].square().sum())
    reads = operator.reads.since(before)
    return Eigen(
        eigenvalues=restored(S[:rank].square(), operator.exponent, operator.dtype, "Eigenvalues"),
        eigenvectors=U[:, :rank].to(operator.dtype),
        relative_error=left / trace if trace > 0 else 0.0,
        num_passes=reads.passes,
        num_matvecs=reads.matvecs,
        num_entries=reads.entries,
    )


def _factor(omega: Float[Tensor, "n l"], image: Float[Tensor, "n l"], dtype: torch.dtype) -> Float[Tensor, "n l"]:
    """F with A + shift ~ F F^T; the shift makes the core positive definite in spite of rounding."""
    norm = torch.linalg.matrix_norm(image)
    shift = float(norm) * torch.finfo(dtype).eps * omega.shape[0] ** 0.5
    image = image + shift * omega
    core = omega.mT @ image
    core = (core + core.mT) / 2
    lower, info = torch.linalg.cholesky_ex(core)
    if int(info) > 0:
        values, vectors = torch.linalg.eigh(core)
        if float(values[0]) < -100 * max(shift, torch.finfo(torch.float64).tiny):
            raise ValueError(
                "`A` must be positive semidefinite. Got a negative Rayleigh quotient; use `randomized_eigh` for "
                "indefinite matrices."
            )
        kept = values > max(shift, torch.finfo(torch.float64).tiny)
        return image @ vectors[:, kept] * values[kept].rsqrt()
    return torch.linalg.solve_triangular(lower.mT, image, upper=True, left=False)


def _eigen(operator: ScaledOperator, factor: Tensor, rank: int, before, tests: Tensor, test_images: Tensor) -> Eigen:
    U, S, _ = torch.linalg.svd(factor, full_matrices=False)
    n, found = U.shape[0], S.shape[0]
    # the shift is taken out again; values below it are rounding
    shift = float(S[0].square()) * torch.finfo(operator.dtype).eps * n**0.5 if found else 0.0
    values = (S.square() - shift).clamp_min(0)[:rank]
    if found < rank:
        U = torch.linalg.qr(torch.cat([U, torch.eye(n, rank, dtype=U.dtype, device=U.device)], -1)).Q
        values = torch.nn.functional.pad(values, (0, rank - found))
    basis = U[:, :rank]
    approximation = basis @ (values.unsqueeze(-1) * (basis.mT @ tests.to(torch.float64)))
    total = test_images.to(torch.float64).square().sum()
    error = (test_images.to(torch.float64) - approximation).square().sum()
    reads = operator.reads.since(before)
    return Eigen(
        eigenvalues=restored(values, operator.exponent, operator.dtype, "Eigenvalues"),
        eigenvectors=basis.to(operator.dtype),
        relative_error=float((error / total).sqrt()) if bool(total > 0) else 0.0,
        num_passes=reads.passes,
        num_matvecs=reads.matvecs,
        num_entries=reads.entries,
    )
