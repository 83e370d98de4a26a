"""F F^T + noise from pivoted columns: the classical preconditioners of kernel matrices."""

from dataclasses import dataclass

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.preconditioners.base import Preconditioner
from rangeformer.preconditioners.local import diagonal_factor
from rangeformer.preconditioners.options import CLASSICAL_RANK, BuildContext, RankedOptions
from rangeformer.preconditioners.pilot import pilot
from rangeformer.preconditioners.pivoted import RULES, pivoted_cholesky


@dataclass(frozen=True)
class ColumnPreconditioner(RankedOptions):
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
        super().check()
        if self.rule not in RULES:
            raise ValueError(f"`rule` must be one of {RULES}. Got {self.rule!r}.")

    @property
    def sketch_rank(self) -> int:
        """As many columns of a sketch."""
        return self.rank

    def build(self, operator: MatrixOperator, context: BuildContext) -> Preconditioner:
        """The pilot's noise and `rank` columns."""
        generator = context.generator
        noise = pilot(operator, generator=generator).noise
        pivoted = pivoted_cholesky(operator, self.rank, noise=noise, rule=self.rule, generator=generator)
        exact = operator.diagonal() - pivoted.factor.square().sum(-1)
        trace = (exact / noise).to(torch.float64).sum(-1)
        P = Preconditioner(pivoted.factor, diagonal_factor(noise), name=self.name, normalised_trace=trace)
        return P.built_from(operator)
