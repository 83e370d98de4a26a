"""A whole spectrum from a part of its Ritz pairs, and sums over it.

The probes' components along the Ritz vectors are a Gauss quadrature of the spectral density (Golub & Meurant 2010;
Ubaru, Chen & Saad 2017): Ritz value i stands for mass_i of the n eigenvalues. Ritz pairs that have converged stand for
one each, whatever their noisy mass, and the others share the rest. Once the space is complete every pair
has converged, and everything here is exact.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from rangeformer.krylov.search_space import Ritz
from rangeformer.shapes import Bool, Float, Tensor

# A pair whose residual is below this share of its distance to the next value stands for itself.
_CONVERGED = 0.1


@dataclass(frozen=True)
class Density:
    """N eigenvalues as m Ritz values with multiplicities.

    Attributes:
        ritz: The Ritz pairs, ascending.
        counts: `(*batch, m)` how many eigenvalues each value stands for; they sum to n.
        converged: `(*batch, m)` which values stand for themselves alone.
        counts_by_probe: `(*batch, m, p)` the same as each probe alone would have it; empty if the space is complete.
        size: N.
    """

    ritz: Ritz
    counts: Float[Tensor, "*batch m"]
    converged: Bool[Tensor, "*batch m"]
    counts_by_probe: Float[Tensor, "*batch m p"]
    size: int

    @property
    def is_complete(self) -> bool:
        """Whether every eigenvalue has its own Ritz value."""
        return self.ritz.values.shape[-1] == self.size


def density(ritz: Ritz, components: Float[Tensor, "*batch m p"], size: int) -> Density:
    """Count the eigenvalues near each Ritz value.

    Args:
        ritz: Ritz pairs.
        components: `(*batch, m, p)` of p isotropic probes that lie in V, along the Ritz vectors.
        size: N.
    """
    masses = components.square()
    if masses.shape[-2] == size:
        every = torch.ones_like(ritz.values)
        return Density(ritz, every, every.bool(), masses[..., :0], size)
    masses = size * masses / masses.sum(-2, keepdim=True).clamp_min(torch.finfo(masses.dtype).tiny)
    # A block shows as many copies of a multiple eigenvalue as it is wide, so a lone Ritz value is a simple eigenvalue.
    converged = _converged(ritz)
    # Where every pair has converged there is nothing but scatter to tell where the other eigenvalues are.
    converged = converged & ~converged.all(-1, keepdim=True)
    by_probe = _shared(masses.mT, converged.unsqueeze(-2), size).mT
    return Density(ritz, _shared(masses.mean(-1), converged, size), converged, by_probe, size)


def eigenvalues(found: Density) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n"]]:
    """The n quantiles of a density, ascending, and how far each may be off."""
    values, residuals, counts = found.ritz.values, found.ritz.residual_norms, found.counts
    if found.is_complete:
        return values, residuals
    edges = counts.cumsum(-1)
    middle = (edges - counts / 2).contiguous()
    wanted = torch.arange(found.size, dtype=middle.dtype, device=middle.device) + 0.5
    wanted = wanted.expand(*middle.shape[:-1], -1).contiguous()
    last = middle.shape[-1] - 1
    right = torch.searchsorted(middle, wanted).clamp(min(1, last), last)
    left = (right - 1).clamp_min(0)

    def at(numbers: Tensor) -> tuple[Tensor, Tensor]:
        return numbers.gather(-1, left), numbers.gather(-1, right)

    (low, high), (start, stop) = at(values), at(middle)
    share = ((wanted - start) / (stop - start).clamp_min(torch.finfo(middle.dtype).tiny)).clamp(0, 1)
    # A converged value is an eigenvalue, not the end of a stretch of them.
    alone = torch.stack(at(found.converged)).any(0)
    share = torch.where(alone, (wanted > edges.gather(-1, left)).to(share.dtype), share)
    estimate = torch.lerp(low, high, share)
    # On a value: how far that may be off. Between two: anything between them is possible.
    gaps = values.diff(dim=-1)
    far = torch.full_like(values[..., :1], torch.inf)
    spacing = torch.minimum(torch.cat([far, gaps], -1), torch.cat([gaps, far], -1))
    own = residuals + torch.where(found.converged | spacing.isinf(), torch.zeros_like(spacing), spacing)
    low_error, high_error = at(own)
    between = torch.maximum(*at(residuals)) + (high - low)
    nearest = torch.where(share < 0.5, low_error, high_error)
    return estimate, torch.where(alone | (share == 0) | (share == 1), nearest, between)


def spectral_sum(
    found: Density, function: Callable[[Tensor], Tensor], *, trace: Float[Tensor, "*batch"] | None = None
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Sum of f over the spectrum, and its standard error over the probes (zero if the space is complete).

    Args:
        found: The density.
        function: f, finite on the Ritz values.
        trace: The sum of the eigenvalues where it is known: the control variate.
    """
    values, counts = found.ritz.values, found.counts
    image = function(values)
    total = (counts * image).sum(-1)
    if found.is_complete:
        return total, torch.zeros_like(total)
    by_probe = (found.counts_by_probe * image.unsqueeze(-1)).sum(-2)
    if trace is not None:
        rest = (counts - 1).clamp_min(0)
        mass = rest.sum(-1, keepdim=True).clamp_min(1)
        mean, mean_image = (rest * values).sum(-1, keepdim=True) / mass, (rest * image).sum(-1, keepdim=True) / mass
        variance = (rest * (values - mean).square()).sum(-1)
        covariance = (rest * (values - mean) * (image - mean_image)).sum(-1)
        beta = covariance / torch.where(variance > 0, variance, torch.ones_like(variance))
        total = total + beta * (trace - (counts * values).sum(-1))
        probed = (found.counts_by_probe * values.unsqueeze(-1)).sum(-2)
        by_probe = by_probe + beta.unsqueeze(-1) * (trace.unsqueeze(-1) - probed)
    return total, by_probe.std(-1) / by_probe.shape[-1] ** 0.5


def _converged(ritz: Ritz) -> Tensor:
    """Ritz values that are further from their neighbours than their residuals reach."""
    gaps = ritz.values.diff(dim=-1)
    far = torch.full_like(ritz.values[..., :1], torch.inf)
    nearest = torch.minimum(torch.cat([far, gaps], -1), torch.cat([gaps, far], -1))
    return ritz.residual_norms <= _CONVERGED * nearest


def _shared(masses: Tensor, converged: Tensor, size: int) -> Tensor:
    """One for the converged, the rest in proportion to the masses of the others."""
    others = torch.where(converged, torch.zeros_like(masses), masses)
    rest = size - converged.sum(-1, keepdim=True).to(masses.dtype)
    share = others / others.sum(-1, keepdim=True).clamp_min(torch.finfo(masses.dtype).tiny)
    return torch.where(converged, torch.ones_like(masses), rest * share)
