"""`eigvalsh` and `eigsh`: eigenvalues of a symmetric matrix by a looped model, with error bounds."""

from typing import Any

import torch

from rangeformer.arrays import numpy_in_numpy_out
from rangeformer.krylov.ritz import is_proven
from rangeformer.models.looped_model import LoopedModel
from rangeformer.models.scaled_operator import ScaledOperator, beyond_range
from rangeformer.operators import as_operator
from rangeformer.results import EigenPairs, Spectrum, costs, unresolved, warn_unconverged
from rangeformer.shapes import Tensor
from rangeformer.solvers.learned_krylov import METHOD, check_learned_krylov, check_loops, check_model
from rangeformer.validation import check_count, check_square, check_symmetric, check_tolerance

_ENDS = ("largest", "smallest", "magnitude")


@numpy_in_numpy_out
def eigvalsh(
    A: Any,
    *,
    rtol: float = 1e-6,
    model: LoopedModel | None = None,
    num_loops: int | None = None,
    generator: torch.Generator | None = None,
) -> Spectrum:
    """All eigenvalues of a symmetric A.

    The learned Krylov model reads A once a loop, 64 matvecs at a time. Once `num_loops` x 64 >= n the answer is exact
    up to rounding; before, leading eigenvalues come with residual bounds and the others are quantiles of the spectral
    density. How often an eigenvalue occurs that does so 64 times or more is then an estimate, and `errors` allow four
    of its standard errors: `converged` is not a guarantee of the count.

    Args:
        A: `(*batch, n, n)` symmetric, anything `as_operator` accepts.
        rtol: Estimated error accepted, relative to the largest magnitude.
        model: Default: the shipped learned Krylov model.
        num_loops: Passes of the model. Default: the model's own, 16.
        generator: Source of randomness; a fixed one if None.

    Returns:
        The eigenvalues, ascending, with an error estimate for each; not differentiable.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: Wrong shape or value of an argument; A not symmetric or not finite.

    Warns:
        ConvergenceWarning: If an estimated error is above `rtol`, or a value beyond the range of A's type.

    Example:
        >>> import torch, rangeformer as rf
        >>> spectrum = rf.eigvalsh(torch.diag(torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64)))
        >>> [round(x, 6) for x in spectrum.value.tolist()], bool(spectrum.converged.all())
        ([1.0, 2.0, 3.0], True)
    """
    operator = as_operator(A)
    check_square(operator)
    check_tolerance("rtol", rtol)
    answering = check_model(model)
    loops = check_loops(num_loops, answering)
    before = operator.reads.snapshot()
    scaled = ScaledOperator(operator)
    check_symmetric(scaled)
    with torch.no_grad():
        value, errors = answering.eigenvalues(scaled, num_loops=loops, generator=generator)
        tolerance = rtol * value.abs().amax(-1, keepdim=True)
        converged = value.isfinite() & (errors <= tolerance)
        value, holds = scaled.restored(value, tolerance)
        errors, _ = scaled.restored(errors, tolerance)
    message = "Converged."
    if not bool((converged & holds).all()):
        message = (
            unresolved("eigenvalues", int((~converged).sum()), converged.numel(), loops, rtol)
            if bool(holds.all())
            else beyond_range("an eigenvalue", operator.dtype)
        )
        warn_unconverged(message)
    converged = converged & holds
    return Spectrum(
        value=value,
        errors=errors,
        converged=converged,
        num_loops=loops,
        method=METHOD,
        message=message,
        **costs(operator.reads.since(before)),
    )


@numpy_in_numpy_out
def eigsh(
    A: Any,
    k: int,
    which: str = "largest",
    *,
    rtol: float = 1e-6,
    model: LoopedModel | None = None,
    num_loops: int | None = None,
    generator: torch.Generator | None = None,
) -> EigenPairs:
    """The k leading eigenpairs of a symmetric A, by Rayleigh-Ritz in a block Krylov space.

    `converged` says of a pair that its residual is at most `rtol` of the largest magnitude, which makes it an
    eigenpair, and that nothing shows that others come before it: all those before it have converged, too, and no
    eigenvalue before it was found as often as the block of 64 is wide. An eigenvalue that occurs less often is found
    each time with probability one; that none was skipped is guaranteed only once num_loops x 64 >= n.

    Args:
        A: `(*batch, n, n)` symmetric, anything `as_operator` accepts.
        k: How many, at most min(n, num_loops x 64).
        which: "largest" (descending), "smallest" (ascending) or "magnitude" (largest magnitude first).
        rtol: Residual norm accepted, relative to the largest magnitude; see above.
        model: A `LearnedKrylovModel`. Default: the shipped one.
        num_loops: Passes of the model. Default: the model's own, 16.
        generator: Source of randomness; a fixed one if None.

    Returns:
        The pairs with the residual norm of each; not differentiable.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: Wrong shape or value of an argument; A not symmetric or not finite.

    Warns:
        ConvergenceWarning: If a pair has not converged, or lies beyond the range of A's type.

    Example:
        >>> import torch, rangeformer as rf
        >>> pairs = rf.eigsh(torch.diag(torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64)), 1)
        >>> round(pairs.values.item(), 6), [round(abs(x), 6) for x in pairs.vectors[:, 0].tolist()]
        (3.0, [1.0, 0.0, 0.0])
    """
    operator = as_operator(A)
    check_square(operator)
    check_tolerance("rtol", rtol)
    check_count("k", k, least=1)
    if which not in _ENDS:
        raise ValueError(f"`which` must be one of {_ENDS}. Got {which!r}.")
    answering = check_learned_krylov(model)
    loops = check_loops(num_loops, answering)
    most = min(operator.num_rows, loops * answering.config.channels)
    if k > most:
        raise ValueError(
            f"`k` must be at most {most} for n = {operator.num_rows} and {loops} loops of {answering.config.channels}. "
            f"Got {k}; allow more loops."
        )
    before = operator.reads.snapshot()
    scaled = ScaledOperator(operator)
    check_symmetric(scaled)
    with torch.no_grad():
        space, _ = answering.spectral_space(scaled, num_loops=loops, generator=generator)
        ritz = space.ritz()
        key = {"largest": -ritz.values, "smallest": ritz.values, "magnitude": -ritz.values.abs()}[which]
        order = key.argsort(dim=-1, stable=True)
        chosen = order[..., :k]
        values, residuals = ritz.values.gather(-1, chosen), ritz.residual_norms.gather(-1, chosen)
        vectors = space.combine(torch.take_along_dim(ritz.coefficients, chosen.unsqueeze(-2), dim=-1))
        tolerance = rtol * ritz.values.abs().amax(-1, keepdim=True)
        small = proven = residuals <= tolerance
        if not space.is_complete:
            proven = is_proven(ritz, order, key, block=answering.config.channels, tolerance=tolerance)[..., :k]
        values, holds = scaled.restored(values, tolerance)
        residuals, _ = scaled.restored(residuals, tolerance)
    converged = proven & holds
    message = "Converged."
    if not bool(converged.all()):
        message = _explain(small, proven, holds, loops, rtol, operator.dtype)
        warn_unconverged(message)
    return EigenPairs(
        values=values,
        vectors=vectors.to(operator.dtype),
        residual_norms=residuals,
        converged=converged,
        num_loops=loops,
        method=METHOD,
        message=message,
        **costs(operator.reads.since(before)),
    )


def _explain(small: Tensor, proven: Tensor, holds: Tensor, num_loops: int, rtol: float, dtype: torch.dtype) -> str:
    """Which pairs have not converged, and why: their range, their residuals, or what may come before them."""
    if not bool(holds.all()):
        return beyond_range("an eigenvalue", dtype)
    if not bool(small.all()):
        return unresolved("eigenpairs", int((~proven).sum()), proven.numel(), num_loops, rtol)
    return (
        f"Not converged: before {int((~proven).sum())} of {proven.numel()} eigenpairs, each exact to rtol={rtol:.1e}, "
        f"others may come: an eigenvalue occurs so often that {num_loops} loops need not have found it each time. "
        "Allow more loops (all are found once loops x 64 reach the size of A), or a model with more channels."
    )
