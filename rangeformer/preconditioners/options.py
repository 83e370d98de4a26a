"""What a preconditioner's options must be able to do: build P for a matrix."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.preconditioners.base import Preconditioner, Structure, scaled_identity
from rangeformer.validation import check_count

CLASSICAL_RANK = 100
"""Columns of the classical preconditioners where the caller does not say."""


@dataclass(frozen=True)
class BuildContext:
    """What the caller of `build` knows, beside the matrix.

    Attributes:
        num_rhs: How many columns P will help to solve at a time.
        structure: Pivots and neighbours of a matrix nearby, to be reused by those who have such.
        generator: Source of randomness.
    """

    num_rhs: int = 1
    structure: Structure | None = None
    generator: torch.Generator | None = None


class PreconditionerOptions(ABC):
    """Options as an immutable value. A class of your own may be passed wherever a preconditioner's name is expected.

    Attributes:
        sketch_rank: Where A is known by products alone, a Nystrom sketch of this rank takes the place of options that
            have to read entries; None if `build` needs none.
    """

    @property
    def sketch_rank(self) -> int | None:
        """None: most options of one's own need no entries, or say themselves that they do."""
        return None

    @property
    @abstractmethod
    def name(self) -> str:
        """How results call it."""

    @abstractmethod
    def build(self, operator: MatrixOperator, context: BuildContext) -> Preconditioner:
        """P for this matrix, in its dtype and on its device; called without autograd.

        Args:
            operator: A.
            context: What else is known.
        """

    def check(self) -> None:  # noqa: B027 - options without values have nothing to check
        """Raise for values that make no sense, before any work."""

    def changed(self, **choices: Any) -> "PreconditionerOptions":
        """These options with what the caller chose by keyword; they decide which of it concerns them.

        Args:
            **choices: `num_columns`, `num_neighbors` and `model`, None where nothing was chosen.
        """
        return self


class RankedOptions(PreconditionerOptions):
    """Options whose one size is a rank, which the caller calls the number of columns.

    Attributes:
        rank: Columns read, or sketched; a field of the dataclass that inherits this.
    """

    rank: int

    def check(self) -> None:
        """Check the rank."""
        check_count("rank", self.rank, least=0)

    def changed(self, **choices: Any) -> "RankedOptions":
        """With another rank."""
        rank = choices.get("num_columns")
        return self if rank is None else replace(self, rank=rank)  # type: ignore[type-var]


@dataclass(frozen=True)
class NoPreconditioner(PreconditionerOptions):
    """P = I."""

    @property
    def name(self) -> str:
        """As results call it."""
        return "none"

    def build(self, operator: MatrixOperator, context: BuildContext) -> Preconditioner:
        """The identity."""
        ones = torch.ones(operator.shape[:-1], dtype=operator.dtype, device=operator.device)
        return scaled_identity(ones)
