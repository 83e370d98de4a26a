"""A pilot sample of a matrix: 32 of its columns and 256 small blocks tell how to spend the rest.

The pilot answers three questions at a cost that does not matter beside one pass over A:

- *How much of the diagonal is noise?* For A = K + diag(noise) the factor must be made of K's columns, not A's, or the
  pivots' own noise enters it. GPyTorch states the noise; a plain matrix does not. The conditional variance of a row
  given its nearest neighbours bounds the noise there from above and comes close to it where rows crowd together, so
  half of the smallest relative one over the sampled rows is a cautious estimate: too small costs a few
  iterations, too large could make A - diag(noise) indefinite.
- *How far from a multiple of its diagonal is A?* The leading eigenvalue of the scaled columns.
- *Do neighbours explain what columns leave?* The drop of the residual variance given eight of them.
"""

from dataclasses import dataclass

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.preconditioners.local import conditional_weights
from rangeformer.preconditioners.pivoted import pivoted_cholesky
from rangeformer.randomness import draw_normal, draw_order
from rangeformer.shapes import Float, Tensor

_NUM_COLUMNS = 32
_NUM_ROWS = 256
_NUM_NEIGHBORS = 8
_CAUTION = 0.5
_NUM_LANCZOS = 6


@dataclass(frozen=True)
class Pilot:
    """What the pilot sample showed; the scalars are the most demanding of the batch.

    Attributes:
        noise: `(*batch, n)` known or estimated noise on the diagonal, at least at rounding level.
        spread: Estimated condition number of A after scaling its diagonal to one, from below.
        unexplained: Mean residual variance after 32 columns, in units of the noise.
        neighbor_gain: Mean of log(R_ii / D_i): what eight neighbours take off the residual variance.
    """

    noise: Float[Tensor, "*batch n"]
    spread: float
    unexplained: float
    neighbor_gain: float


def pilot(operator: MatrixOperator, *, generator: torch.Generator | None = None) -> Pilot:
    """Read the pilot sample.

    Args:
        operator: A, PSD with entry access.
        generator: Source of the sampled columns and rows.
    """
    diagonal = operator.diagonal()
    n = operator.num_rows
    floor = _rounding_floor(operator, diagonal)
    known = None if operator.noise is None else floored_noise(operator, diagonal)
    k = min(_NUM_NEIGHBORS, n - 1)
    if k == 0:
        return Pilot(floor if known is None else known, 1.0, 0.0, 0.0)
    first = pivoted_cholesky(operator, min(_NUM_COLUMNS, n // 2), noise=known, generator=generator)
    shuffled = draw_order(n, generator, device=operator.device)
    rows = shuffled[: min(_NUM_ROWS, n)].expand(*operator.batch_shape, -1)
    residual = torch.maximum(first.residual_diagonal + (0 if known is None else known), floor)
    own_residual = torch.take_along_dim(residual, rows, -1).to(torch.float64)
    neighbors = _nearest(first.factor, rows, k)
    _, variances = conditional_weights(operator, first.factor, neighbors, residual, rows)
    # Pivots explain themselves: their residual is zero by construction and says nothing.
    is_pivot = (rows.unsqueeze(-1) == first.pivots.unsqueeze(-2)).any(-1)
    if known is None:
        share = variances / torch.take_along_dim(diagonal, rows, -1).to(torch.float64)
        share = share.masked_fill(is_pivot, torch.inf).amin(-1, keepdim=True)
        share = torch.where(share.isfinite(), share, torch.zeros_like(share)).to(diagonal.dtype)
        noise = torch.maximum(_CAUTION * share * diagonal, floor)
        # A row may look noisy only because its neighbours are not among the sampled tokens (stencils, graphs): the
        # noise cannot exceed the smallest eigenvalue, which a few Lanczos steps bound from above.
        smallest = smallest_ritz_share(operator, diagonal, generator=generator).unsqueeze(-1).to(diagonal.dtype)
        noise = torch.maximum(torch.minimum(noise, _CAUTION * smallest * diagonal), floor)
    else:
        noise = known
    gain = (own_residual / variances).log().masked_fill(is_pivot, torch.nan)
    scaled = first.factor / (first.residual_diagonal + noise).clamp_min(1e-300).sqrt().unsqueeze(-1)
    scaled = torch.where(scaled.isfinite(), scaled, torch.zeros_like(scaled)).to(torch.float64)
    leading = torch.linalg.matrix_norm(scaled.mT @ scaled, ord=2)
    seen = [leading.max(), (first.residual_diagonal / noise).mean(-1).max(), gain.nanmean(-1).nan_to_num(0.0).max()]
    # one reading by the host for all three
    largest, unexplained, neighbor_gain = torch.stack([number.to(torch.float64) for number in seen]).tolist()
    return Pilot(noise=noise, spread=1 + largest, unexplained=unexplained, neighbor_gain=neighbor_gain)


def floored_noise(operator: MatrixOperator, diagonal: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """The noise that A states, at least at rounding level.

    Args:
        operator: A, with a stated noise.
        diagonal: Of A.
    """
    assert operator.noise is not None
    return torch.maximum(operator.noise.detach(), _rounding_floor(operator, diagonal))


def _rounding_floor(operator: MatrixOperator, diagonal: Tensor) -> Tensor:
    """Below this share of the diagonal a pivot row's variance would drown in the rounding of the factor."""
    return torch.finfo(operator.dtype).eps ** 0.75 * _positive(diagonal)


def _positive(diagonal: Tensor) -> Tensor:
    """The diagonal, without its zeros and negatives: A is not positive definite then, and P must be all the same."""
    largest = diagonal.abs().amax(-1, keepdim=True)
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    return torch.where(diagonal > 0, diagonal, largest)


def smallest_ritz_share(
    operator: MatrixOperator, diagonal: Float[Tensor, "*batch n"], *, generator: torch.Generator | None = None
) -> Float[Tensor, "*batch"]:
    """Smallest Ritz value of A with its diagonal scaled to one, after a few Lanczos steps; at least zero, float64."""
    scale = torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal)).rsqrt().unsqueeze(-1)
    start = draw_normal((*operator.shape[:-1], 1), generator, dtype=operator.dtype, device=operator.device)
    basis = torch.nn.functional.normalize(start, dim=-2)
    images = basis[..., :0]
    for _ in range(min(_NUM_LANCZOS, operator.num_rows)):
        image = scale * operator.matmul(scale * basis[..., -1:])
        images = torch.cat([images, image], -1)
        for _ in range(2):
            image = image - basis @ (basis.mT @ image)
        basis = torch.cat([basis, torch.nn.functional.normalize(image, dim=-2)], -1)
    projection = (basis[..., :-1].mT @ images).to(torch.float64)
    projection = torch.where(projection.isfinite(), projection, torch.zeros_like(projection))
    return torch.linalg.eigvalsh((projection + projection.mT) / 2)[..., 0].clamp_min(0)


def _nearest(tokens: Tensor, rows: Tensor, k: int) -> Tensor:
    """The k nearest other tokens of the sampled rows."""
    own = torch.take_along_dim(tokens, rows.unsqueeze(-1), dim=-2)
    distance = tokens.square().sum(-1).unsqueeze(-2) - 2 * own @ tokens.mT
    distance = distance.scatter(-1, rows.unsqueeze(-1), torch.inf)
    return distance.topk(k, largest=False).indices
