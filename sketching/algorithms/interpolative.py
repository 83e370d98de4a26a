"""Approximations by A's own columns and rows: interpolative decomposition and CUR.

The columns are chosen on a row sketch Q^T A, Q from `randomized_svd`'s range, by pivoted QR (Voronin & Martinsson,
"Efficient algorithms for CUR and interpolative matrix decompositions", 2017), so that the choice costs what a
randomised SVD costs and the factors keep what A's entries have: sparsity, signs, units.
"""

from dataclasses import dataclass
from typing import Any

import scipy.linalg
import torch

from rangeformer.shapes import Float, Int, Tensor
from sketching.algorithms.randomized_svd import AUTO, randomized_svd
from sketching.arguments import check_rank, one_matrix
from sketching.scaled_operator import ScaledOperator, restored, times_power_of_two
from sketching.sketches import Sketch


@dataclass(frozen=True)
class Interpolative:
    """A ~ A[:, columns] @ coefficients.

    Attributes:
        columns: `(rank,)` indices.
        coefficients: `(rank, n)`, the identity at `columns`.
        num_passes: Times A was read as a whole.
        num_entries: Entries read outside products.
    """

    columns: Int[Tensor, " r"]
    coefficients: Float[Tensor, "r n"]
    num_passes: int
    num_entries: int


@dataclass(frozen=True)
class CUR:
    """A ~ C U R with columns C and rows R of A; unpacks to `C, U, R`.

    Attributes:
        C: `(m, rank)` columns of A.
        U: `(rank, rank)`.
        R: `(rank, n)` rows of A.
        columns: `(rank,)` indices of C.
        rows: `(rank,)` indices of R.
        num_passes: Times A was read as a whole.
        num_entries: Entries read outside products.
    """

    C: Float[Tensor, "m r"]
    U: Float[Tensor, "r r"]
    R: Float[Tensor, "r n"]
    columns: Int[Tensor, " r"]
    rows: Int[Tensor, " r"]
    num_passes: int
    num_entries: int

    def __iter__(self):
        """`C, U, R = ...`."""
        return iter((self.C, self.U, self.R))


def interpolative(
    A: Any,
    rank: int,
    *,
    sketch: str | Sketch = "rangeformer",
    num_power_iterations: int | str = AUTO,
    generator: torch.Generator | None = None,
) -> Interpolative:
    """Columns of A that span its leading range, and the coefficients of all others in them.

    Args:
        A: `(m, n)`, anything `rangeformer.as_operator` reads.
        rank: Columns wanted, at most min(m, n).
        sketch: As for `randomized_svd`.
        num_power_iterations: As for `randomized_svd`.
        generator: Source of all randomness; a fixed one if None.

    Returns:
        The decomposition; entries of `coefficients` are seldom larger than 2.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: Wrong value of an argument.

    Example:
        >>> import torch, sketching
        >>> A = torch.outer(torch.arange(1.0, 9.0), torch.tensor([1.0, 4.0, 2.0]))
        >>> sketching.interpolative(A, 1).columns.tolist()
        [1]
    """
    operator = ScaledOperator(one_matrix(A))
    check_rank(operator, rank)
    before = operator.reads.snapshot()
    _, S, Vh = randomized_svd(
        operator, rank, sketch=sketch, num_power_iterations=num_power_iterations, generator=generator
    )
    columns, coefficients = _pivoted(S.unsqueeze(-1).to(torch.float64) * Vh.to(torch.float64))
    reads = operator.reads.since(before)
    return Interpolative(columns, coefficients.to(operator.dtype), reads.passes, reads.entries)


def cur(
    A: Any,
    rank: int,
    *,
    sketch: str | Sketch = "rangeformer",
    num_power_iterations: int | str = AUTO,
    generator: torch.Generator | None = None,
) -> CUR:
    """A from its own columns and rows.

    U = C^+ (U_r S_r V_r^T) R^+ with the low-rank approximation that the choice rests on, so no further pass is made.

    Args:
        A: `(m, n)` with entries to read.
        rank: Columns, and rows, wanted; at most min(m, n).
        sketch: As for `randomized_svd`.
        num_power_iterations: As for `randomized_svd`.
        generator: Source of all randomness; a fixed one if None.

    Returns:
        The three factors and the indices.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: Wrong value of an argument, or A without entry access.
    """
    matrix = one_matrix(A)
    operator = ScaledOperator(matrix)
    check_rank(operator, rank)
    if not operator.has_entries:
        raise ValueError("`A` must have entries to read. Got products alone; use `randomized_svd`.")
    before = operator.reads.snapshot()
    U, S, Vh = (
        factor.to(torch.float64)
        for factor in randomized_svd(
            operator, rank, sketch=sketch, num_power_iterations=num_power_iterations, generator=generator
        )
    )
    columns, _ = _pivoted(S.unsqueeze(-1) * Vh)
    rows, _ = _pivoted(S.unsqueeze(-1) * U.mT)
    with torch.no_grad():
        C, R = matrix.columns(columns.to(matrix.device)), matrix.rows(rows.to(matrix.device))
    eps = torch.finfo(matrix.dtype).eps * max(matrix.shape)
    scaled_C, scaled_R = (times_power_of_two(part.to(torch.float64), -operator.exponent) for part in (C, R))
    left = torch.linalg.pinv(scaled_C, rtol=eps) @ U
    right = Vh @ torch.linalg.pinv(scaled_R, rtol=eps)
    reads = operator.reads.since(before)
    middle = restored(left * S @ right, -operator.exponent, matrix.dtype, "Entries of U")
    return CUR(C, middle, R, columns, rows, reads.passes, reads.entries)


def _pivoted(sketch: Float[Tensor, "r n"]) -> tuple[Int[Tensor, " r"], Float[Tensor, "r n"]]:
    """Leading columns of a pivoted QR and the coefficients of all columns in them."""
    rank, n = sketch.shape
    R, order = scipy.linalg.qr(sketch.cpu().numpy(), mode="r", pivoting=True)  # pyright: ignore[reportAssignmentType]
    R, order = torch.from_numpy(R), torch.from_numpy(order).long()
    head, tail = R[:, :rank], R[:, rank:]
    # a rank-deficient A has fewer independent columns than were asked for: the rest get zero coefficients
    scale = float(head[0, 0].abs())
    sound = int((head.diagonal().abs() > scale * torch.finfo(torch.float64).eps * n).sum()) if scale > 0 else 0
    solved = torch.zeros(rank, n - rank, dtype=torch.float64)
    solved[:sound] = torch.linalg.solve_triangular(head[:sound, :sound], tail[:sound], upper=True)
    coefficients = torch.zeros(rank, n, dtype=torch.float64)
    coefficients[:, order[:rank]] = torch.eye(rank, dtype=torch.float64)
    coefficients[:, order[rank:]] = solved
    return order[:rank].to(sketch.device), coefficients.to(sketch.device)
