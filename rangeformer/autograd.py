"""Gradients of answers that autograd does not see being computed. They can be differentiated once, not twice.

The gradients of `linear_solve`, `logdet` and `inv_quad_logdet` are computed from solutions that autograd takes for
constants. A second derivative through them would silently miss terms.
`torch.autograd.function.once_differentiable` does not notice when the incoming gradient is a constant, as of a sum;
tying the gradient to an input of the answer does.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from rangeformer.results import warn_unconverged
from rangeformer.shapes import Tensor


def differentiable_no_further(gradient: Tensor, source: Tensor) -> Tensor:
    """`gradient`, such that differentiating it again raises a RuntimeError.

    Args:
        gradient: What a backward pass hands on.
        source: A tensor of the forward pass that requires grad.
    """
    return _Last.apply(gradient, source) if torch.is_grad_enabled() else gradient


class Adjoint(torch.autograd.Function):
    """The identity on the solution whose derivative with respect to the residual is A^-1.

    With r(theta) = rhs(theta) - A(theta) x at fixed x, dx = A^-1 dr: autograd reaches rhs and whatever A is built from
    through r, and only the adjoint solve is ours.
    """

    @staticmethod
    def forward(
        ctx: Any, residual: Tensor, value: Tensor, adjoint: Callable[[Tensor], Tensor], reaches_matrix: bool = False
    ):
        """`value`, and A^-1 kept for later.

        Args:
            ctx: Torch's.
            residual: r.
            value: x.
            adjoint: Gradients to A^-T gradients, any size of column.
            reaches_matrix: Whether r carries gradients to A: its gradient -(A^-T gradient) x^T is then looked after.
        """
        ctx.adjoint, ctx.reaches_matrix = adjoint, reaches_matrix
        ctx.save_for_backward(residual, value)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor):
        """One adjoint solve."""
        residual, value = ctx.saved_tensors
        with torch.no_grad():
            # What is not finite stays so, as everywhere in autograd; nothing can be solved for it.
            lost = ~gradient.isfinite().all(-2, keepdim=True)
            solution = ctx.adjoint(torch.where(lost, torch.zeros_like(gradient), gradient))
            solution = torch.where(lost, torch.full_like(solution, torch.nan), solution)
            if bool(lost.any()):
                warn_unconverged(
                    "In the gradient: what reaches the solve is infinite or NaN, and NaN is handed on. Divide the loss "
                    "by its size."
                )
            elif not bool(solution.isfinite().all()):
                _warn_beyond_range("right-hand side", solution.dtype)
            elif ctx.reaches_matrix and _product_overflows(solution, value):
                _warn_beyond_range("matrix", solution.dtype)
        return differentiable_no_further(solution, residual), None, None, None


def _product_overflows(left: Tensor, right: Tensor) -> bool:
    """Whether left @ right.mT has entries beyond the range of its type; what the columns' largest entries say."""
    first, second = (torch.frexp(x.abs().amax(-2).to(torch.float64)) for x in (left, right))
    # The product of two mantissas is below one: this exponent is reached by the largest entries or exceeded by one.
    exponents = (first.exponent + second.exponent).to(torch.float64) + torch.log2(first.mantissa * second.mantissa)
    return bool((exponents >= math.log2(torch.finfo(left.dtype).max)).any())


def _warn_beyond_range(what: str, dtype: torch.dtype) -> None:
    wider = " or compute in float64," if dtype == torch.float32 else ""
    warn_unconverged(
        f"In the gradient: the derivative by the {what} lies beyond the range of {dtype} and is infinite or NaN there."
        f" Divide the right-hand side or the loss by its size,{wider} and scale the derivative back."
    )


class ValueWithGradient(torch.autograd.Function):
    """The first argument's value with the second one's gradient: a surrogate whose own value does not matter."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, surrogate: Tensor):
        """`value`."""
        ctx.save_for_backward(surrogate)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor):
        """The gradient goes to the surrogate."""
        return None, differentiable_no_further(gradient, *ctx.saved_tensors)


class _Last(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, source: Tensor):
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor):
        raise RuntimeError(
            "rangeformer's solves and log-determinants can be differentiated once, not twice: second derivatives would "
            "miss terms. For small matrices use torch.linalg.solve and torch.linalg.slogdet."
        )
