"""How much to spend on a preconditioner: from the pilot sample, the size, and the number of right-hand sides.

No fixed choice serves all matrices (docs/design.md, "How much to spend"). Three decisions, each from one statistic:

- nothing, where the scaled matrix is so well conditioned that a handful of plain iterations solve it;
- columns only, where they leave less than the noise or neighbours do not explain what they leave;
- columns and neighbours otherwise, the more the larger the matrix: an iteration costs n^2 a column, the set-up
  n k (k + c).

A fourth, everything, is a matter of cost alone and is made before the pilot
sample (`rangeformer.preconditioners.cholesky`).
"""

from dataclasses import dataclass

from rangeformer.operators import MatrixOperator
from rangeformer.preconditioners.pilot import Pilot

# With a condition number below this, CG gains a digit in about four iterations without any help.
_EASY_SPREAD = 10.0
# Residual variance in units of the noise below which low rank alone has won.
_EXPLAINED = 0.1
# Mean log variance ratio below which eight neighbours are not worth their set-up.
_NO_GAIN = 0.05


@dataclass(frozen=True)
class Budget:
    """Columns read for the global part and neighbours kept for the local one."""

    num_columns: int
    num_neighbors: int


def choose_budget(
    operator: MatrixOperator,
    sample: Pilot,
    num_rhs: int,
    *,
    num_columns: int | None = None,
    num_neighbors: int | None = None,
) -> Budget:
    """Decide what to spend on this matrix.

    Args:
        operator: A.
        sample: What the pilot sample showed.
        num_rhs: Columns solved for at a time.
        num_columns: The caller's own choice, or None.
        num_neighbors: The caller's own choice, or None.

    Returns:
        The budget, never more than the matrix has.
    """
    n = operator.num_rows
    columns, neighbors = _for_size(n, num_rhs)
    if sample.spread < _EASY_SPREAD and sample.unexplained < _EASY_SPREAD:
        columns, neighbors = 0, 0
    elif sample.unexplained < _EXPLAINED or sample.neighbor_gain < _NO_GAIN:
        neighbors = 0
    columns = columns if num_columns is None else num_columns
    neighbors = neighbors if num_neighbors is None else num_neighbors
    return Budget(min(columns, n), min(neighbors, n - 1))


def _for_size(n: int, num_rhs: int) -> tuple[int, int]:
    """Columns and neighbours at which set-up and iterations cost about the same (measured, docs/design.md)."""
    columns = 64 if n < 3000 else 128 if n < 20_000 else 256
    neighbors = 16 if n < 20_000 else 32
    return (columns // 2 if num_rhs == 1 and n < 3000 else columns), neighbors
