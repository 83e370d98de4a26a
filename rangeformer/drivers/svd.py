"""`svdvals`: singular values of any matrix by a looped model, with error bounds."""

from typing import Any

import torch

from rangeformer.arrays import numpy_in_numpy_out
from rangeformer.krylov.ritz import density, eigenvalues
from rangeformer.models.learned_krylov import LearnedKrylovModel
from rangeformer.models.scaled_operator import ScaledOperator, beyond_range
from rangeformer.operators import TransposedOperator, as_operator
from rangeformer.results import Spectrum, costs, unresolved, warn_unconverged
from rangeformer.solvers.learned_krylov import METHOD, check_learned_krylov, check_loops
from rangeformer.validation import check_count, check_tolerance


@numpy_in_numpy_out
def svdvals(
    A: Any,
    k: int | None = None,
    *,
    rtol: float = 1e-6,
    model: LearnedKrylovModel | None = None,
    num_loops: int | None = None,
    generator: torch.Generator | None = None,
) -> Spectrum:
    """Singular values of A, descending: all of them, or the k largest.

    The space is the block Krylov space of A^T A (of A A^T for a wide A), two passes a loop, as in Golub & Kahan 1965;
    the values are those of A V, so that small ones do not suffer from squaring. Once `num_loops` x 64 >= min(m, n) they
    are exact up to rounding; before, leading ones come with residual bounds and the others are quantiles of the
    spectral density. How often a value occurs that does so 64 times or more is then an estimate, and `errors` allow
    four of its standard errors: `converged` is not a guarantee of the count.

    Args:
        A: `(*batch, m, n)`, anything `as_operator` accepts that can be multiplied from both sides.
        k: How many; all min(m, n) if None.
        rtol: Estimated error accepted, relative to the largest.
        model: A `LearnedKrylovModel`. Default: the shipped one.
        num_loops: Loops of the model. Default: the model's own, 16.
        generator: Source of randomness; a fixed one if None.

    Returns:
        The singular values with an error estimate for each; not differentiable.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: Wrong shape or value of an argument.
        NotImplementedError: A cannot be multiplied from the left.

    Warns:
        ConvergenceWarning: If an estimated error is above `rtol`, or a value beyond the range of A's type.

    Example:
        >>> import torch, rangeformer as rf
        >>> spectrum = rf.svdvals(torch.tensor([[3.0, 0.0, 0.0], [0.0, -4.0, 0.0]], dtype=torch.float64))
        >>> [round(x, 6) for x in spectrum.value.tolist()]
        [4.0, 3.0]
    """
    operator = as_operator(A)
    check_tolerance("rtol", rtol)
    size = min(operator.num_rows, operator.num_columns)
    check_count("k", k, least=1, optional=True)
    if k is not None and k > size:
        raise ValueError(f"`k` must be at most min(m, n) = {size}. Got {k}.")
    answering = check_learned_krylov(model)
    loops = check_loops(num_loops, answering)
    before = operator.reads.snapshot()
    tall = ScaledOperator(TransposedOperator(operator) if operator.num_rows < operator.num_columns else operator)
    with torch.no_grad():
        space, probes = answering.spectral_space(tall, gram=True, num_loops=loops, generator=generator)
        ritz = space.singular()
        components = ritz.coefficients.mT @ (space.basis.mT.to(torch.float64) @ probes.to(torch.float64))
        value, errors = eigenvalues(density(ritz, components, size))
        value, errors = value.flip(-1)[..., :k], errors.flip(-1)[..., :k]
        tolerance = rtol * value[..., :1]
        converged = value.isfinite() & (errors <= tolerance)
        value, holds = tall.restored(value, tolerance)
        errors, _ = tall.restored(errors, tolerance)
    message = "Converged."
    if not bool((converged & holds).all()):
        message = (
            unresolved("singular values", int((~converged).sum()), converged.numel(), loops, rtol)
            if bool(holds.all())
            else beyond_range("a singular value", operator.dtype)
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
