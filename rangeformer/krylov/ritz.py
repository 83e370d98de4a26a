"""A whole spectrum from a part of its Ritz pairs, and sums over it.

The probes' components along the Ritz vectors are a Gauss quadrature of the spectral density (Golub & Meurant 2010;
Ubaru, Chen & Saad 2017): Ritz value i stands for mass_i of the n eigenvalues. Ritz pairs that have converged stand for
one each, whatever their noisy mass, and the others share the rest. Once the space is complete every pair
has converged, and everything here is exact.

Before, a residual says that an eigenvalue is near, not how many are. A Krylov space that a Gaussian block of b columns
has started holds, with probability one, every copy of an eigenvalue that occurs less than b times, and of any other one
an unknown share of its copies. What `is_proven` and the quantiles say of a count rests on that.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from rangeformer.krylov.search_space import Ritz
from rangeformer.shapes import Bool, Float, Int, Tensor

# A pair whose residual is below this share of its distance to the next value stands for itself.
_CONVERGED = 0.1
# And so does each copy of a multiple eigenvalue whose residuals are below this share of its distance to other values.
_SEPARATED = 0.001
# Standard errors by which the number of eigenvalues below a quantile may be off.
_STANDARD_ERRORS = 4.0
# Errors below this share of what a miscount would change do not know of it.
_UNAWARE = 0.02
# Fewer probes than this do not tell how much they scatter.
_FEW_PROBES = 8


@dataclass(frozen=True)
class Density:
    """N eigenvalues as m Ritz values with multiplicities.

    Attributes:
        ritz: The Ritz pairs, ascending.
        counts: `(*batch, m)` how many eigenvalues each value stands for; they sum to n.
        converged: `(*batch, m)` which values stand for themselves alone.
        counts_by_probe: `(*batch, m, p)` the same as each probe alone would have it; empty if the space is complete.
        uncertainty: `(*batch, m)` how far the number of eigenvalues up to each value may be off.
        size: N.
    """

    ritz: Ritz
    counts: Float[Tensor, "*batch m"]
    converged: Bool[Tensor, "*batch m"]
    counts_by_probe: Float[Tensor, "*batch m p"]
    uncertainty: Float[Tensor, "*batch m"]
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
        return Density(ritz, every, every.bool(), masses[..., :0], torch.zeros_like(every), size)
    masses = size * masses / masses.sum(-2, keepdim=True).clamp_min(torch.finfo(masses.dtype).tiny)
    # A block shows as many copies of a multiple eigenvalue as it is wide, so a lone Ritz value is a simple eigenvalue,
    # and a group of fewer than that is complete.
    converged = _converged(ritz) | _complete_groups(ritz, masses)
    # Where every pair has converged there is nothing but scatter to tell where the other eigenvalues are.
    converged = converged & ~converged.all(-1, keepdim=True)
    by_probe = _shared(masses.mT, converged.unsqueeze(-2), size).mT
    counts = _shared(masses.mean(-1), converged, size)
    uncertainty = _uncertainty(ritz, counts, converged, masses, size)
    return Density(ritz, counts, converged, by_probe, uncertainty, size)


def _uncertainty(ritz: Ritz, counts: Tensor, converged: Tensor, masses: Tensor, size: int) -> Float[Tensor, "*batch m"]:
    """How far the number of eigenvalues up to each value may be off.

    Unresolved values that are fewer than the block is wide are all there are of them; only the number of the others
    scatters, and what the noisy masses say of the former is off by a known amount.
    """
    group, members = _groups(ritz, _CONVERGED)
    known = converged | ((members < masses.shape[-1]) & _plausible(group, members, masses))
    known = torch.where(known.all(-1, keepdim=True), converged, known)
    by_probe = _shared(masses.mT, known.unsqueeze(-2), size).mT.cumsum(-2)
    num_probes = masses.shape[-1]
    scatter = by_probe.std(-1) / num_probes**0.5 if num_probes >= _FEW_PROBES else torch.full_like(counts, size)
    return _STANDARD_ERRORS * scatter + (by_probe.mean(-1) - counts.cumsum(-1)).abs()


def eigenvalues(found: Density) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n"]]:
    """The n quantiles of a density, ascending, and how far each may be off."""
    values, residuals, counts = found.ritz.values, found.ritz.residual_norms, found.counts
    if found.is_complete:
        return values, residuals
    edges = counts.cumsum(-1)
    middle = (edges - counts / 2).contiguous()
    wanted = torch.arange(found.size, dtype=middle.dtype, device=middle.device) + 0.5
    wanted = wanted.expand(*middle.shape[:-1], -1).contiguous()
    estimate, errors = _quantiles(found, wanted, middle, edges)
    # Where multiple eigenvalues begin and end is known up to the scatter of their counts over the probes.
    stretch = torch.searchsorted(edges, wanted).clamp_max(edges.shape[-1] - 1)
    begin = torch.nn.functional.pad(found.uncertainty[..., :-1], (1, 0))
    shift = torch.maximum(begin, found.uncertainty).gather(-1, stretch)
    moved = torch.stack([_quantiles(found, (wanted + sign * shift).contiguous(), middle, edges)[0] for sign in (-1, 1)])
    change = (moved - estimate).abs().amax(0)
    return estimate, torch.where(errors < _UNAWARE * change, change, errors)


def _quantiles(found: Density, wanted: Tensor, middle: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Quantiles at `wanted`, and how far the residuals let each be off.

    Args:
        found: The density.
        wanted: `(*batch, n)` positions between 0 and n.
        middle: `(*batch, m)` positions of the Ritz values.
        edges: `(*batch, m)` where the stretch of each ends.
    """
    values, residuals = found.ritz.values, found.ritz.residual_norms
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


def is_proven(
    ritz: Ritz, order: Int[Tensor, "*batch m"], keys: Float[Tensor, "*batch m"], *, block: int, tolerance: Tensor
) -> Bool[Tensor, "*batch m"]:
    """Which Ritz pairs have converged, and no eigenvalue that comes before them has been skipped as far as can be seen.

    A pair is in doubt if one before it has not converged, or if there is a group of `block` or more unresolved ones
    whose first member is before it by more than the tolerance: such a group may have more members than were found. So
    it is if the last value at either end has not converged and may belong before it (where an order by magnitude begins
    at both ends).

    Args:
        ritz: The pairs of a space that is not complete, ascending, started at a Gaussian block.
        order: Their numbers in the order that is wanted.
        keys: `(*batch, m)` what that order sorts by, ascending, one for each pair of `ritz`.
        block: Columns of the start.
        tolerance: `(*batch, 1)` residual norm accepted.

    Returns:
        For every pair, in the order that is wanted.
    """
    large = ~(ritz.residual_norms <= tolerance).gather(-1, order)
    group, members = _groups(ritz, _CONVERGED)
    first = torch.full_like(keys, torch.inf).scatter_reduce(-1, group, keys, "amin").gather(-1, group)
    first = torch.where(members >= block, first, torch.full_like(first, torch.inf)).amin(-1, keepdim=True)
    # None of the ends that has converged needs to be looked at.
    reach = torch.where(ritz.residual_norms <= tolerance, torch.inf, keys - ritz.residual_norms)[..., [0, -1]]
    sound = (keys <= first + tolerance) & (keys <= reach.amin(-1, keepdim=True))
    return (large.cumsum(-1) == 0) & sound.gather(-1, order)


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


def _groups(ritz: Ritz, share: float) -> tuple[Int[Tensor, "*batch m"], Int[Tensor, "*batch m"]]:
    """Ritz values that their residuals do not tell apart: the number of each one's group, and its members.

    Args:
        ritz: The pairs, ascending.
        share: Residuals below this share of the gap between two values tell them apart.
    """
    residuals = ritz.residual_norms
    apart = torch.maximum(residuals[..., 1:], residuals[..., :-1]) <= share * ritz.values.diff(dim=-1)
    group = torch.cat([torch.zeros_like(apart[..., :0].sum(-1, keepdim=True)), apart.cumsum(-1)], -1)
    members = torch.zeros_like(group).scatter_add(-1, group, torch.ones_like(group)).gather(-1, group)
    return group, members


def _plausible(group: Tensor, members: Tensor, masses: Tensor) -> Bool[Tensor, "*batch m"]:
    """Whether the probes see no more of a group than its members.

    The few vectors that a space of nearly n directions shares with the eigenvectors of a multiple eigenvalue are exact,
    too, and few for no other reason.
    """
    index = group.unsqueeze(-1).expand_as(masses)
    seen = torch.zeros_like(masses).scatter_add(-2, index, masses).gather(-2, index)
    if masses.shape[-1] < _FEW_PROBES:
        return torch.ones_like(members, dtype=torch.bool)
    scatter = seen.std(-1) / masses.shape[-1] ** 0.5
    return seen.mean(-1) <= members + _STANDARD_ERRORS * scatter


def _complete_groups(ritz: Ritz, masses: Tensor) -> Tensor:
    """Copies of an eigenvalue that occurs less often than the block is wide.

    Their values are nearer to each other than their residuals tell apart, and further from all others.
    """
    group, members = _groups(ritz, 1.0)
    residuals, gaps = ritz.residual_norms, ritz.values.diff(dim=-1)
    worst = torch.zeros_like(residuals).scatter_reduce(-1, group, residuals, "amax").gather(-1, group)
    within = group.diff(dim=-1) == 0
    # The group's own residuals decide; what lies next to it need only be somewhere else.
    below = (worst[..., 1:] <= _SEPARATED * gaps) & (residuals[..., :-1] <= _CONVERGED * gaps)
    above = (worst[..., :-1] <= _SEPARATED * gaps) & (residuals[..., 1:] <= _CONVERGED * gaps)
    end = torch.ones_like(group[..., :1], dtype=torch.bool)
    sound = torch.cat([end, within | below], -1) & torch.cat([within | above, end], -1)
    spoiled = torch.zeros_like(group).scatter_add(-1, group, (~sound).to(group.dtype)).gather(-1, group)
    sound = (spoiled == 0) & (members > 1) & (members < masses.shape[-1])
    return sound & _plausible(group, members, masses)


def _shared(masses: Tensor, converged: Tensor, size: int) -> Tensor:
    """One for the converged, the rest in proportion to the masses of the others."""
    others = torch.where(converged, torch.zeros_like(masses), masses)
    rest = size - converged.sum(-1, keepdim=True).to(masses.dtype)
    share = others / others.sum(-1, keepdim=True).clamp_min(torch.finfo(masses.dtype).tiny)
    return torch.where(converged, torch.ones_like(masses), rest * share)
