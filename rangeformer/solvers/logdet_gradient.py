"""Gradients of the quadratic form and of the log-determinant estimate, from one product with A.

The idea of the estimate one order down: d log det A = beta tr(P^-1 dA) + tr((A^-1 - beta P^-1) dA), the first term
exact through the rows of S, the second stochastic, with P held fixed. Both are unbiased whatever P is.
"""

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.preconditioners.base import Preconditioner
from rangeformer.shapes import Float, Tensor
from rangeformer.solvers.logdet_estimate import LogdetEstimate


def logdet_surrogate(
    operator: MatrixOperator,
    P: Preconditioner,
    estimate: LogdetEstimate,
    *,
    solution: Float[Tensor, "*batch n k"] | None = None,
    rhs: Float[Tensor, "*batch n k"] | None = None,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"] | None]:
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
        The log-determinant's surrogate, and the quadratic form's or None.
    """
    deflated, right, beta = estimate.deflated, estimate.right, estimate.beta
    r, m = deflated.shape[-1], right.shape[-1]
    images = operator.matmul(torch.cat([deflated, right] + ([] if solution is None else [solution]), -1))
    quadratic = None
    if solution is not None and rhs is not None:
        quadratic = (2 * rhs * solution - solution * images[..., r + m :]).sum((-1, -2))
    stochastic = (estimate.left * images[..., r : r + m]).sum((-1, -2))
    if not bool((beta != 0).any()):
        return stochastic, quadratic
    removed = (deflated * images[..., :r]).sum((-1, -2))
    local = P.quadratic_of_rows(operator).sum(-1).to(removed.dtype)
    return stochastic + beta.to(local.dtype) * (local - removed), quadratic
