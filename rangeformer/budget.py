"""How much to spend on a preconditioner."""

from dataclasses import dataclass

from rangeformer.operators import MatrixOperator


@dataclass(frozen=True)
class Budget:
    """Columns read and neighbours kept."""

    num_columns: int
    num_neighbors: int


def choose_budget(
    operator: MatrixOperator,
    num_rhs: int,
    *,
    num_columns: int | None,
    num_neighbors: int | None,
) -> Budget:
    n = operator.num_rows
    columns = 128 if num_columns is None else num_columns
    neighbors = 16 if num_neighbors is None else num_neighbors
    return Budget(min(columns, n // 2), min(neighbors, n - 1))
