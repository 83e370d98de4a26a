"""The preconditioner of this package: pivoted columns for the range, token neighbours for what they leave."""

import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from rangeformer.models.checkpoint import load
from rangeformer.models.features import RangeFormer
from rangeformer.operators import MatrixOperator
from rangeformer.preconditioners.base import Preconditioner, Structure
from rangeformer.preconditioners.budget import choose_budget
from rangeformer.preconditioners.cholesky import cholesky_preconditioner, is_cheaper
from rangeformer.preconditioners.local import local_factor
from rangeformer.preconditioners.neighbors import nearest_earlier, strongest
from rangeformer.preconditioners.options import CLASSICAL_RANK, BuildContext, PreconditionerOptions
from rangeformer.preconditioners.pilot import floored_noise, pilot
from rangeformer.preconditioners.pivoted import PivotedFactor, pivoted_cholesky
from rangeformer.randomness import draw_order
from rangeformer.shapes import Float, Int, Tensor
from rangeformer.validation import check_count

_CANDIDATES_PER_NEIGHBOR = 4


@dataclass(frozen=True)
class RangeFormerPreconditioner(PreconditionerOptions):
    """Global + local: pivoted columns for the range, token neighbours for what they leave.

    Attributes:
        num_columns: c, columns of A read for the global part; None chooses per matrix.
        num_neighbors: k, earlier rows each row conditions on; None chooses per matrix.
        model: A `RangeFormer`, or None for the shipped weights.
        trained: False for a model as it is before training, in place of `model`.
    """

    num_columns: int | None = None
    num_neighbors: int | None = None
    model: RangeFormer | None = None
    trained: bool = True

    @property
    def name(self) -> str:
        """As results call it."""
        return "rangeformer" if self.trained else "rangeformer-untrained"

    def check(self) -> None:
        """Check both counts."""
        check_count("num_columns", self.num_columns, least=0, optional=True)
        check_count("num_neighbors", self.num_neighbors, least=0, optional=True)

    def changed(self, **choices: Any) -> "RangeFormerPreconditioner":
        """With other counts or another model."""
        return replace(self, **{name: value for name, value in choices.items() if value is not None})

    @property
    def sketch_rank(self) -> int:
        """Without entries there are no columns and no neighbours to read: the sketch is the global part."""
        return CLASSICAL_RANK if self.num_columns is None else self.num_columns

    def build(self, operator: MatrixOperator, context: BuildContext) -> Preconditioner:
        """P from what the budget allows; the Cholesky factor where that is cheaper."""
        generator = context.generator
        if self.num_columns is self.num_neighbors is None and is_cheaper(operator, context.num_rhs):
            exact = cholesky_preconditioner(operator)
            if exact is not None:
                return exact
        if context.structure is not None:
            return self._reusing(operator, context.structure, generator)
        sample = pilot(operator, generator=generator)
        counts = {"num_columns": self.num_columns, "num_neighbors": self.num_neighbors}
        budget = choose_budget(operator, sample, context.num_rhs, **counts)
        pivoted = pivoted_cholesky(operator, budget.num_columns, noise=sample.noise, generator=generator)
        exact, residual = _residual(operator, pivoted, sample.noise)
        model = self.model if self.trained else RangeFormer.untrained()
        neighbors = _propose_neighbors(operator, pivoted, residual, budget.num_neighbors, model, generator)
        found = Structure(pivoted.pivots, neighbors)
        return _assembled(operator, pivoted, exact, residual, found, self.name)

    def _reusing(
        self, operator: MatrixOperator, structure: Structure, generator: torch.Generator | None
    ) -> Preconditioner:
        """Pivots and neighbours as given; nothing is left for a pilot to decide but a noise that nobody states."""
        _check_structure(structure, operator)
        if operator.noise is None:
            noise = pilot(operator, generator=generator).noise
        else:
            noise = floored_noise(operator, operator.diagonal())
        pivoted = pivoted_cholesky(
            operator, structure.pivots.shape[-1], noise=noise, pivots=structure.pivots, generator=generator
        )
        exact, residual = _residual(operator, pivoted, noise)
        return _assembled(operator, pivoted, exact, residual, structure, self.name)


def _residual(operator: MatrixOperator, pivoted: PivotedFactor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Diagonal of A - F F^T, and the same with a floor that keeps the variances positive.

    Recomputed, because an overestimated noise makes the recursion clamp.
    """
    exact = operator.diagonal() - pivoted.factor.square().sum(-1)
    return exact, torch.maximum(exact, 0.1 * noise)


def _assembled(
    operator: MatrixOperator,
    pivoted: PivotedFactor,
    exact: Float[Tensor, "*batch n"],
    residual: Float[Tensor, "*batch n"],
    structure: Structure,
    name: str,
) -> Preconditioner:
    local = local_factor(operator, pivoted.factor, structure.neighbors, residual)
    # Every row solved exactly contributes 1 to tr(S R S^T); a floored one contributes less.
    floored = (exact - residual).to(torch.float64) * local.inverse_scale.to(torch.float64).square()
    P = Preconditioner(
        pivoted.factor,
        local,
        name=name,
        normalised_trace=operator.num_rows + floored.sum(-1),
        structure=structure,
    )
    return P.built_from(operator)


def _propose_neighbors(
    operator: MatrixOperator,
    pivoted: PivotedFactor,
    residual: Tensor,
    num_neighbors: int,
    model: RangeFormer | None,
    generator: torch.Generator | None,
) -> Int[Tensor, "*batch n k"]:
    n = operator.num_rows
    num_neighbors = min(num_neighbors, n - 1)
    if num_neighbors == 0 or pivoted.factor.shape[-1] == 0:
        return torch.empty(*operator.shape[:-1], 0, dtype=torch.long, device=operator.device)
    model = _on_device(model, operator.device)
    features = model(
        pivoted.factor.reshape(-1, *pivoted.factor.shape[-2:]),
        pivoted.residual_diagonal.reshape(-1, n),
        pivoted.diagonal.reshape(-1, n),
    )
    tokens = features.neighbors.reshape(*operator.shape[:-1], -1)
    # A random order makes every row's past a uniform sample of the others, whatever order A came in.
    order = draw_order(n, generator, device=operator.device).expand(*operator.batch_shape, n)
    candidates = nearest_earlier(tokens, order, _CANDIDATES_PER_NEIGHBOR * num_neighbors)
    return strongest(operator, pivoted.factor, residual, candidates, num_neighbors)


@lru_cache(maxsize=4)
def _shipped(device: torch.device) -> RangeFormer:
    return load().to(device)


def _on_device(model: RangeFormer | None, device: torch.device) -> RangeFormer:
    """The shipped weights, or a caller's model, copied rather than moved if it lives elsewhere."""
    if model is None:
        return _shipped(device)
    at = next(model.parameters()).device
    return model if at == device else copy.deepcopy(model).to(device)


def _check_structure(structure: Structure, operator: MatrixOperator) -> None:
    rows = operator.shape[:-1]
    if structure.pivots.shape[:-1] != rows[:-1] or structure.neighbors.shape[:-1] != rows:
        raise ValueError(
            f"`structure` must belong to a matrix of A's shape {tuple(operator.shape)}. Got pivots of shape "
            f"{tuple(structure.pivots.shape)} and neighbors of shape {tuple(structure.neighbors.shape)}."
        )
