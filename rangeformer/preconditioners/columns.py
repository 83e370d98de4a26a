"""F F^T + noise from pivoted columns: the classical preconditioners of kernel matrices."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.preconditioners.base import Preconditioner, Structure
from rangeformer.preconditioners.local import diagonal_factor
from rangeformer.preconditioners.nystrom import from_products
from rangeformer.preconditioners.options import CLASSICAL_RANK, PreconditionerOptions
from rangeformer.preconditioners.pilot import pilot
from rangeformer.preconditioners.pivoted import RULES, pivoted_cholesky
from rangeformer.validation import check_count


@dataclass(frozen=True)
class ColumnPreconditioner(PreconditionerOptions):
    """F F^T + noise from pivoted columns (Chen et al. 2025 random, GPyTorch's default greedy).

    The diagonal of the residual is deliberately left out, as it slows both tested kernels.

    Attributes:
        rule: "random" or "greedy".
        rank: Columns read.
    """

    rule: str = "random"
    rank: int = CLASSICAL_RANK

    @property
    def name(self) -> str:
        """As results call it."""
        return "pivoted-cholesky" if self.rule == "greedy" else "rpcholesky"

    def check(self) -> None:
        """Check rank and rule."""
        check_count("rank", self.rank, least=0)
        if self.rule not in RULES:
            raise ValueError(f"`rule` must be one of {RULES}. Got {self.rule!r}.")

    def changed(self, **choices: Any) -> "ColumnPreconditioner":
        """With another rank."""
        rank = choices.get("num_columns")
        return self if rank is None else replace(self, rank=rank)

    def build(
        self,
        operator: MatrixOperator,
        *,
        num_rhs: int = 1,
        structure: Structure | None = None,
        generator: torch.Generator | None = None,
    ) -> Preconditioner:
        """The pilot's noise and `rank` columns; a sketch where A has no entries to read."""
        if not operator.has_entries:
            return from_products(operator, self.rank, generator, name=f"{self.name} (products only: nystrom)")
        noise = pilot(operator, generator=generator).noise
        pivoted = pivoted_cholesky(operator, self.rank, noise=noise, rule=self.rule, generator=generator)
        exact = operator.diagonal() - pivoted.factor.square().sum(-1)
        trace = (exact / noise).to(torch.float64).sum(-1)
        P = Preconditioner(pivoted.factor, diagonal_factor(noise), name=self.name, normalised_trace=trace)
        return P.built_from(operator)
