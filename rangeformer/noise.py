"""How much of the diagonal is noise, when nobody says.

For A = K + diag(noise) the factor must be made of K's columns, not A's, or the pivots' own noise enters it.
GPyTorch states the noise; a plain matrix does not. The conditional variance of a row given its nearest
neighbours bounds the noise there from above and comes close to it where rows crowd together, so half of the smallest
relative one over a sample of rows is a cautious estimate: too small costs a few iterations, too large could
make A - diag(noise) indefinite.
"""

import torch

from rangeformer.local import conditional_weights
from rangeformer.operators import MatrixOperator
from rangeformer.pivoted import pivoted_cholesky
from rangeformer.shapes import Float, Tensor

_NUM_COLUMNS = 32
_NUM_ROWS = 256
_NUM_NEIGHBORS = 8
_CAUTION = 0.5


def estimate_noise(
    operator: MatrixOperator, *, generator: torch.Generator | None = None
) -> Float[Tensor, "*batch n"]:
    """The noise A states, else a cautious estimate proportional to A's diagonal.

    Args:
        operator: A, PSD with entry access; reads 32 columns and 256 small blocks at most.
        generator: Source of the sampled columns and rows.

    Returns:
        `(*batch, n)`, at least at rounding level of the diagonal.
    """
    diagonal = operator.diagonal()
    # Below this share of the diagonal a pivot row's variance would drown in the rounding of the factor.
    floor = torch.finfo(operator.dtype).eps ** 0.75 * diagonal
    if operator.noise is not None:
        return torch.maximum(operator.noise.detach(), floor)
    n = operator.num_rows
    pivoted = pivoted_cholesky(operator, min(_NUM_COLUMNS, n // 2), generator=generator)
    device = generator.device if generator is not None else torch.device("cpu")
    shuffled = torch.randperm(n, generator=generator, device=device).to(operator.device)
    rows = shuffled[: min(_NUM_ROWS, n)].expand(*operator.batch_shape, -1)
    k = min(_NUM_NEIGHBORS, n - 1)
    if k == 0:
        return floor
    tokens = pivoted.factor
    own = torch.take_along_dim(tokens, rows.unsqueeze(-1), dim=-2)
    distance = tokens.square().sum(-1).unsqueeze(-2) - 2 * own @ tokens.mT
    distance = distance.scatter(-1, rows.unsqueeze(-1), torch.inf)
    neighbors = distance.topk(k, largest=False).indices
    # Pivots explain themselves: their residual is zero by construction and says nothing of the noise.
    residual = torch.maximum(pivoted.residual_diagonal, floor)
    _, variances = conditional_weights(operator, pivoted.factor, neighbors, residual, rows)
    relative = variances / torch.take_along_dim(diagonal, rows, -1).to(torch.float64)
    is_pivot = (rows.unsqueeze(-1) == pivoted.pivots.unsqueeze(-2)).any(-1)
    relative = relative.masked_fill(is_pivot, torch.inf).amin(-1, keepdim=True)
    relative = torch.where(relative.isfinite(), relative, torch.zeros_like(relative))
    return torch.maximum(_CAUTION * relative.to(diagonal.dtype) * diagonal, floor)
