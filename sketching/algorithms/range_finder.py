"""An orthonormal basis of the leading range, of a given rank or of the rank that a tolerance asks for.

Adaptive: blocks are added until the part of a few test images outside the basis is small enough (Halko, Martinsson &
Tropp 2011, Section 4.4; Martinsson & Voronin, "A randomized blocked algorithm for efficiently computing rank-revealing
factorizations of matrices", 2016). The first block comes from the sketch, later ones, twice as wide each, are Gaussian:
the rows that the sketch has read are used up by then, and the test images say what is left. One pass a block.
"""

from typing import Any

import torch

from rangeformer.randomness import SKETCH, generator_or_default
from rangeformer.validation import check_count, check_tolerance
from sketching.algorithms.error_estimate import Missed, check_finite, draw_test_vectors, missed_energy
from sketching.algorithms.new_directions import new_directions
from sketching.arguments import as_sketch, check_rank, draw_sketch, one_matrix, renamed_tolerance, rows_allowed
from sketching.results import Range
from sketching.scaled_operator import ScaledOperator
from sketching.sketches import Gaussian, Sketch


def range_finder(
    A: Any,
    rank: int | None = None,
    *,
    rtol: float | None = None,
    block_size: int = 32,
    num_oversamples: int = 10,
    sketch: str | Sketch = "rangeformer",
    max_rows: int | None = None,
    generator: torch.Generator | None = None,
    tolerance: float | None = None,
) -> Range:
    """Q with A ~ Q Q^T A.

    Args:
        A: `(m, n)`, anything `rangeformer.as_operator` reads; products from the right suffice.
        rank: Columns of Q beside the oversamples; with a tolerance the most columns allowed (default min(m, n)).
        rtol: Relative Frobenius error to reach; None for a fixed rank.
        block_size: Width of the first block of the adaptive search.
        num_oversamples: Extra columns for a fixed rank.
        sketch: As for `randomized_svd`.
        max_rows: As for `randomized_svd`.
        generator: Source of all randomness; a fixed one if None.
        tolerance: The former name of `rtol`; deprecated.

    Returns:
        The basis with an estimate of its error; `converged` says whether `rtol` was met. Without `rtol` it is True and
        promises nothing.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: Wrong value of an argument, or neither rank nor rtol.

    Example:
        >>> import torch, sketching
        >>> A = torch.outer(torch.arange(1.0, 9.0), torch.ones(5))
        >>> sketching.range_finder(A, rtol=1e-3, block_size=2).Q.shape[1]
        2
    """
    operator = ScaledOperator(one_matrix(A))
    limit = min(operator.num_rows, operator.num_columns)
    rtol = renamed_tolerance(rtol, tolerance)
    if rank is None and rtol is None:
        raise ValueError("`rank` or `rtol` must be given. Got None for both.")
    if rank is not None:
        check_rank(operator, rank)
    if rtol is not None:
        check_tolerance("rtol", rtol)
    check_count("block_size", block_size, least=1)
    check_count("num_oversamples", num_oversamples, least=0)
    if rtol is None:
        assert rank is not None
        capacity = first = min(rank + num_oversamples, limit)
    else:
        capacity = limit if rank is None else rank
        first = min(block_size, capacity)
    distribution, allowed = as_sketch(sketch), rows_allowed(operator, first, max_rows)
    generator = generator_or_default(generator, SKETCH)
    before = operator.reads.snapshot()
    with torch.no_grad():
        omega = draw_sketch(operator, distribution, first, allowed, generator)
        images = operator.matmul(torch.cat([omega, draw_test_vectors(operator, generator)], -1))
        check_finite(images)
        image, test_images = images.tensor_split([first], -1)
        total = float(test_images.to(torch.float64).square().sum(0).mean())
        Q = torch.linalg.qr(image).Q
        missed = missed_energy(Q, test_images)
        width = first
        while rtol is not None and not _met(missed, total, rtol) and Q.shape[1] < capacity:
            width = min(2 * width, capacity - Q.shape[1])
            block = operator.matmul(Gaussian().draw(operator, width, generator=generator))
            Q = torch.cat([Q, new_directions(Q, block, generator)], -1)
            missed = missed_energy(Q, test_images)
    reads = operator.reads.since(before)
    relative = (missed.mean / total) ** 0.5 if total > 0 else 0.0
    converged = rtol is None or _met(missed, total, rtol)
    verdict = "" if rtol is None else f" The tolerance {rtol:.1e} is {'met' if converged else 'not met'}."
    return Range(
        Q=Q,
        relative_error=relative,
        num_passes=reads.passes,
        num_matvecs=reads.matvecs,
        num_entries=reads.entries,
        converged=converged,
        message=f"{Q.shape[1]} columns, estimated relative error {relative:.2e}.{verdict}",
    )


def _met(missed: Missed, total: float, rtol: float) -> bool:
    return missed.upper <= rtol**2 * total
