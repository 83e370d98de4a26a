"""What a model that answers directly must be able to do; the drivers check what it says."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn

from rangeformer.operators import MatrixOperator
from rangeformer.shapes import Float, Tensor


class LoopedModel(nn.Module, ABC):
    """A looped model from a matrix to answers, at any size and with any number of loops.

    Attributes:
        config: A frozen dataclass of plain values with `num_loops`, the default number of loops.
    """

    config: Any

    @abstractmethod
    def solve(
        self,
        operator: MatrixOperator,
        rhs: Float[Tensor, "*batch n k"],
        *,
        num_loops: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch n k"]:
        """X with A X ~ rhs.

        Args:
            operator: A, symmetric unless the member says otherwise.
            rhs: `(*batch, n, k)`.
            num_loops: Default: the configuration's.
            generator: Source of randomness; a fixed one if None.

        Returns:
            `(*batch, n, k)` in the dtype of rhs.
        """

    @abstractmethod
    def eigenvalues(
        self,
        operator: MatrixOperator,
        *,
        num_loops: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n"]]:
        """All eigenvalues of a symmetric A, ascending, and an estimate of each one's error.

        Args:
            operator: A.
            num_loops: Default: the configuration's.
            generator: Source of randomness; a fixed one if None.
        """

    @abstractmethod
    def logdet(
        self,
        operator: MatrixOperator,
        *,
        num_loops: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Log det A of a symmetric positive definite A, and an estimate of its error.

        Args:
            operator: A.
            num_loops: Default: the configuration's.
            generator: Source of randomness; a fixed one if None.

        Returns:
            The value, -inf where A shows itself singular and NaN where it shows itself indefinite; the error.
        """
