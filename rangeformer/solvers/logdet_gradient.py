"""Gradients of the quadratic form and of the log-determinant estimate, from one product with A.

The idea of the estimate one order down: d log det A = beta tr(P^-1 dA) + tr((A^-1 - beta P^-1) dA), the first term
exact through the rows of S, the second stochastic, with P held fixed. Both are unbiased whatever P is.
"""

from dataclasses import dataclass

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.preconditioners.base import Preconditioner
from rangeformer.shapes import Float, Tensor
from rangeformer.solvers.logdet_estimate import LogdetEstimate


@dataclass(frozen=True)
class Surrogates:
    """Functions of A's parameters (and rhs) whose gradients are wanted; their values do not matter.

    Attributes:
        logdet: `(*batch)` with the gradient of log det A.
        quadratic: `(*batch)` with that of rhs^T A^-1 rhs, or None.
        probe_terms: `(*batch, m)` the stochastic part of `logdet` probe by probe, of which it holds the mean; None
            where nothing is stochastic.
    """

    logdet: Float[Tensor, "*batch"]
    quadratic: Float[Tensor, "*batch"] | None
    probe_terms: Float[Tensor, "*batch m"] | None


def logdet_surrogate(
    operator: MatrixOperator,
    P: Preconditioner,
    estimate: LogdetEstimate,
    *,
    solution: Float[Tensor, "*batch n k"] | None = None,
    rhs: Float[Tensor, "*batch n k"] | None = None,
) -> Surrogates:
    """Functions of A's parameters (and rhs) whose gradients are those of log det A and of rhs^T A^-1 rhs.

    One product carries all of it: the deflated directions and probes for the log-determinant, x for the quadratic form,
    whose surrogate 2 rhs^T x - x^T A x also carries the gradient to rhs.

    Args:
        operator: A, read with its graph.
        P: The preconditioner of the estimate.
        estimate: The estimate.
        solution: X, without a graph; None for the log-determinant alone.
        rhs: Right-hand sides, with their graph; None as `solution`.

    Returns:
        Surrogates of the log-determinant and, if there is a solution, of the quadratic form.
    """
    deflated, right, beta = estimate.deflated, estimate.right, estimate.beta
    r, m = deflated.shape[-1], right.shape[-1]
    images = operator.matmul(torch.cat([deflated, right] + ([] if solution is None else [solution]), -1))
    quadratic = None
    if solution is not None and rhs is not None:
        quadratic = (2 * rhs * solution - solution * images[..., r + m :]).sum((-1, -2))
    products = estimate.left * images[..., r : r + m]
    stochastic = products.sum((-1, -2))
    probe_terms = m * products.sum(-2) if estimate.num_probes > 1 else None
    if not bool((beta != 0).any()):
        return Surrogates(stochastic, quadratic, probe_terms)
    removed = (deflated * images[..., :r]).sum((-1, -2))
    local = P.quadratic_of_rows(operator).sum(-1).to(removed.dtype)
    return Surrogates(stochastic + beta.to(local.dtype) * (local - removed), quadratic, probe_terms)
