"""Gradients of answers that autograd does not see being computed. They can be differentiated once, not twice.

The gradients of `linear_solve`, `logdet` and `inv_quad_logdet` are computed from solutions that autograd takes for
constants. A second derivative through them would silently miss terms.
`torch.autograd.function.once_differentiable` does not notice when the incoming gradient is a constant, as of a sum;
tying the gradient to an input of the answer does.
"""

from collections.abc import Callable
from typing import Any

import torch

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
    def forward(ctx: Any, residual: Tensor, value: Tensor, adjoint: Callable[[Tensor], Tensor]):
        """`value`, and A^-1 kept for later."""
        ctx.adjoint = adjoint
        ctx.save_for_backward(residual)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor):
        """One adjoint solve."""
        with torch.no_grad():
            solution = ctx.adjoint(gradient)
        return differentiable_no_further(solution, *ctx.saved_tensors), None, None


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
