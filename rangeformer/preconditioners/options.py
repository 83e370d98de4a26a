"""What a preconditioner's options must be able to do: build P for a matrix."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.preconditioners.base import Preconditioner, Structure, scaled_identity

CLASSICAL_RANK = 100
"""Columns of the classical preconditioners where the caller does not say."""


class PreconditionerOptions(ABC):
    """Options as an immutable value. A class of your own may be passed wherever a preconditioner's name is expected."""

    @property
    @abstractmethod
    def name(self) -> str:
        """How results call it."""

    @abstractmethod
    def build(
        self,
        operator: MatrixOperator,
        *,
        num_rhs: int = 1,
        structure: Structure | None = None,
        generator: torch.Generator | None = None,
    ) -> Preconditioner:
        """P for this matrix, in its dtype and on its device; called without autograd.

        Args:
            operator: A.
            num_rhs: How many columns P will help to solve at a time.
            structure: Pivots and neighbours of a matrix nearby, to be reused by those who have such.
            generator: Source of randomness.
        """

    def check(self) -> None:  # noqa: B027 - options without values have nothing to check
        """Raise for values that make no sense, before any work."""

    def changed(self, **choices: Any) -> "PreconditionerOptions":
        """These options with what the caller chose by keyword; they decide which of it concerns them.

        Args:
            **choices: `num_columns`, `num_neighbors` and `model`, None where nothing was chosen.
        """
        return self


@dataclass(frozen=True)
class NoPreconditioner(PreconditionerOptions):
    """P = I."""

    @property
    def name(self) -> str:
        """As results call it."""
        return "none"

    def build(
        self,
        operator: MatrixOperator,
        *,
        num_rhs: int = 1,
        structure: Structure | None = None,
        generator: torch.Generator | None = None,
    ) -> Preconditioner:
        """The identity."""
        ones = torch.ones(operator.shape[:-1], dtype=operator.dtype, device=operator.device)
        return scaled_identity(ones)
