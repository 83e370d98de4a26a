"""Randomised block Krylov iteration: the bar for everything that takes several passes.

Musco & Musco, "Randomized block Krylov methods for stronger and faster approximate singular value decomposition",
NeurIPS 2015, Algorithm 2, with full re-orthogonalisation; small blocks do as well as large ones at equal products
(Meyer, Musco & Musco, "On the unreasonable effectiveness of single vector Krylov methods for low-rank approximation",
2024, arXiv:2305.02535).
"""

from typing import Any

import torch

from rangeformer.randomness import SKETCH, generator_or_default
from rangeformer.validation import check_count
from sketching.algorithms.error_estimate import check_finite, draw_test_vectors, missed_energy
from sketching.algorithms.new_directions import new_directions
from sketching.arguments import as_sketch, check_rank, draw_sketch, one_matrix, rows_allowed
from sketching.results import LowRank
from sketching.scaled_operator import ScaledOperator, restored
from sketching.sketches import Sketch


def block_krylov_svd(
    A: Any,
    rank: int,
    *,
    block_size: int | None = None,
    num_iterations: int | None = None,
    sketch: str | Sketch = "rangeformer",
    max_rows: int | None = None,
    generator: torch.Generator | None = None,
) -> LowRank:
    """The leading singular triplets from the space of A Omega, (A A^T) A Omega, ...

    Args:
        A: `(m, n)`, multiplied from both sides.
        rank: Triplets wanted, at most min(m, n).
        block_size: b, columns of Omega. Default: rank + 5.
        num_iterations: q, multiplications by A A^T, two passes each. Default: 2, and more if b (q + 1) < rank + 5.
        sketch: As for `randomized_svd`.
        max_rows: As for `randomized_svd`.
        generator: Source of all randomness; a fixed one if None.

    Returns:
        As `randomized_svd` without `rtol`: `converged` is True and promises nothing.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: Wrong value of an argument, or a space too small for the rank.

    Example:
        >>> import torch, sketching
        >>> S = sketching.block_krylov_svd(torch.diag(torch.arange(9.0)), 2).S
        >>> [round(x, 4) for x in S.tolist()]
        [8.0, 7.0]
    """
    operator = ScaledOperator(one_matrix(A))
    check_rank(operator, rank)
    check_count("block_size", block_size, least=1, optional=True)
    check_count("num_iterations", num_iterations, least=0, optional=True)
    limit = min(operator.num_rows, operator.num_columns)
    width = min(rank + 5 if block_size is None else block_size, limit)
    needed = -(-min(rank + 5, limit) // width) - 1
    iterations = max(2, needed) if num_iterations is None else num_iterations
    if width * (iterations + 1) < rank:
        raise ValueError(
            f"`num_iterations` must be at least {-(-rank // width) - 1} for rank {rank} with blocks of {width}. "
            f"Got {num_iterations}."
        )
    distribution, allowed = as_sketch(sketch), rows_allowed(operator, rank, max_rows)
    generator = generator_or_default(generator, SKETCH)
    before = operator.reads.snapshot()
    with torch.no_grad():
        omega = draw_sketch(operator, distribution, width, allowed, generator)
        images = operator.matmul(torch.cat([omega, draw_test_vectors(operator, generator)], -1))
        check_finite(images)
        image, test_images = images.tensor_split([width], -1)
        block = Q = torch.linalg.qr(image).Q
        coimages = []
        for _ in range(iterations):
            coimages.append(operator.rmatmul(block))
            room = limit - Q.shape[1]
            if room <= 0:
                break
            block = operator.matmul(torch.linalg.qr(coimages[-1]).Q)[:, :room]
            block = new_directions(Q, block, generator)
            Q = torch.cat([Q, block], -1)
        missing = Q.shape[1] - sum(part.shape[1] for part in coimages)
        if missing > 0:
            coimages.append(operator.rmatmul(Q[:, -missing:]))
        Q_right, core = torch.linalg.qr(torch.cat(coimages, -1))
        U, S, Vh = torch.linalg.svd(core.mT.to(torch.float64))
        missed = missed_energy(Q, test_images).mean + float(S[rank:].square().sum())
        total = missed + float(S[:rank].square().sum())
    reads = operator.reads.since(before)
    relative = (missed / total) ** 0.5 if total > 0 else 0.0
    return LowRank(
        U=Q @ U[:, :rank].to(Q.dtype),
        S=restored(S[:rank], operator.exponent, Q.dtype, "Singular values"),
        Vh=Vh[:rank].to(Q.dtype) @ Q_right.mT,
        relative_error=relative,
        num_passes=reads.passes,
        num_matvecs=reads.matvecs,
        num_entries=reads.entries,
        message=f"{iterations} block Krylov iterations. Estimated relative error {relative:.2e}.",
    )
