"""The one interface of all sketches: a distribution from which Omega is drawn, which may read some of A first."""

from abc import ABC, abstractmethod

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.randomness import draw_normal
from rangeformer.shapes import Float, Tensor

LONG = 512  # entries of a row beyond which time counts
_AFFORDABLE = 0.2  # rows^2 over m rank


class Sketch(ABC):
    """A distribution of n x l matrices Omega whose image A Omega is to span A's leading range.

    Whatever a sketch reads of A before it draws is read through the operator and stands in `operator.reads`: c rows
    cost c n entries, c / m of a pass.

    Attributes:
        looks: Whether the distribution reads rows of A before it draws.
    """

    looks: bool = False

    @abstractmethod
    def draw(
        self,
        operator: MatrixOperator,
        num_columns: int,
        *,
        max_rows: int | None = None,
        generator: torch.Generator,
    ) -> Float[Tensor, "n l"]:
        """Draw Omega.

        Args:
            operator: A, `(m, n)`, one matrix.
            num_columns: l, columns of Omega; at most n.
            max_rows: Most rows' worth of entries to read beforehand, ignored by distributions that read nothing.
                Default: the larger of 4 l and a tenth of the rows, never more than half of them, see
                    `default_max_rows`.
            generator: Source of all randomness.

        Returns:
            `(n, num_columns)` in A's dtype and on its device; never NaN, of full column rank with probability one.
        """


def default_max_rows(operator: MatrixOperator, rank: int) -> int:
    """How many rows a sketch may read by default: the larger of 4 rank and a tenth, never more than half, at least one.

    Where rows are long, no more than what can be worked with in a tenth of the time of two passes: time grows as the
    square of the number of rows read, and past 4 rank each buys little.

    Args:
        operator: A.
        rank: Directions wanted.
    """
    m = operator.num_rows
    tenth = -(-m // 10)
    if operator.num_columns > LONG:
        tenth = min(tenth, int((_AFFORDABLE * m * rank) ** 0.5))
    return max(1, min(max(4 * rank, tenth), m // 2))


def filled(
    directions: Float[Tensor, "n k"], num_columns: int, generator: torch.Generator, *, dtype: torch.dtype
) -> Float[Tensor, "n l"]:
    """The first `num_columns` directions, made up to that number by Gaussian columns of the same mean length.

    Args:
        directions: Unit columns, best first.
        num_columns: l.
        generator: Source of the Gaussian columns.
        dtype: Of the result.
    """
    directions = directions[:, :num_columns].to(dtype)
    n, missing = directions.shape[0], num_columns - directions.shape[1]
    if missing <= 0:
        return directions
    gaussian = draw_normal((n, missing), generator, dtype=dtype, device=directions.device) / n**0.5
    return torch.cat([directions, gaussian], -1)
