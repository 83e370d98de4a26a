"""Tokens of a matrix's rows from a few of its columns: what can be known of A before the first pass.

c random columns of S A S, S = diag(A)^(-1/2), are read entry by entry, a fraction c / n of a pass. Nothing is tied to
n, to the scale of A or of the right-hand sides, or to the sign of a singular vector.
"""

from dataclasses import dataclass

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.shapes import Float, Tensor

NUM_ROW_FEATURES = 5
_SPECTRUM = (1, 2, 4, 8)
NUM_FEATURES = NUM_ROW_FEATURES + len(_SPECTRUM) + 2
_FLOOR = 1e-6  # entries of S A S below this say no more than zero does
_REACH = 10.0  # logarithms are cut off here


@dataclass(frozen=True)
class Tokens:
    """What the model sees of each row.

    Attributes:
        features: `(*batch, n, NUM_FEATURES)` about the row, and the same for all rows about the matrix.
        channels: `(*batch, n, num_channels)` leading left singular vectors of the columns with mean square one, in
            random signs; zero where there are fewer.
    """

    features: Float[Tensor, "*batch n f"]
    channels: Float[Tensor, "*batch n c"]


@torch.no_grad()
def read_tokens(
    operator: MatrixOperator,
    rhs: Float[Tensor, "*batch n k"],
    scale: Float[Tensor, "*batch n"],
    *,
    num_columns: int,
    num_channels: int,
    generator: torch.Generator,
) -> Tokens:
    """Read columns and describe the rows by them.

    Args:
        operator: A, with entries.
        rhs: The right-hand sides.
        scale: S.
        num_columns: c, at most n.
        num_channels: Singular vectors used.
        generator: Source of the choice of columns and of the signs.
    """
    n = operator.num_rows
    scale = scale.to(torch.float64)
    index = torch.randperm(n, generator=generator, device=generator.device)[:num_columns].to(operator.device)
    columns = operator.columns(index.expand(*operator.batch_shape, -1)).to(torch.float64)
    columns = scale.unsqueeze(-1) * columns * scale[..., index].unsqueeze(-2)
    # A column's own row says nothing: its entry is one.
    own = torch.arange(n, device=operator.device).unsqueeze(-1) == index
    others = columns.masked_fill(own, 0.0)
    count = (~own).sum(-1).clamp_min(1)
    energy = _log(others.square().sum(-1) / count)
    mean = _log(others.abs().sum(-1) / count)
    size = (scale.unsqueeze(-1) * rhs.to(torch.float64)).square().mean(-1)
    total = size.mean(-1, keepdim=True)
    size = _log(size / torch.where(total > 0, total, torch.ones_like(total)))
    diagonal = -2 * scale.log()
    rows = [energy - energy.mean(-1, keepdim=True), mean - mean.mean(-1, keepdim=True), 2 * mean - energy]
    rows += [size - size.mean(-1, keepdim=True), diagonal - diagonal.mean(-1, keepdim=True)]
    U, sigma, _ = torch.linalg.svd(columns, full_matrices=False)
    decay = [_log(sigma[..., min(j, sigma.shape[-1] - 1)] / sigma[..., 0]) for j in _SPECTRUM]
    whole = [energy.mean(-1), mean.mean(-1), *decay]
    whole = [value.unsqueeze(-1).expand_as(energy) for value in whole]
    features = torch.stack([*rows, *whole], -1).clamp(-_REACH, _REACH) / 3
    signs = 2 * torch.randint(0, 2, (num_channels,), generator=generator, device=generator.device) - 1
    channels = U.new_zeros(*U.shape[:-1], num_channels)
    used = min(num_channels, U.shape[-1])
    channels[..., :used] = (n**0.5 * U[..., :used] * signs[:used].to(U)).clamp(-_REACH, _REACH)
    return Tokens(features, channels)


def _log(values: Tensor) -> Tensor:
    return values.clamp_min(_FLOOR).log()
