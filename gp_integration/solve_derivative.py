"""First derivatives of solves and of what is built from them; second ones are refused.

The refusal is `rangeformer.autograd`'s: gradients may be asked for with `create_graph=True`, and
differentiating them again raises a RuntimeError, because solutions count as constants in them.
"""

import torch
from torch import Tensor

from rangeformer.autograd import differentiable_no_further


class SolveDerivative(torch.autograd.Function):
    """The identity on x = A^-1 rhs whose derivative is that of the solve.

    As in linear_operator, the gradient in A is symmetric: -(g x^T + x g^T) / 2 with g = A^-1 gradient.
    """

    @staticmethod
    def forward(ctx, solution, representation_tree, adjoint, rhs, *parts):  # noqa: D102
        ctx.representation_tree, ctx.adjoint = representation_tree, adjoint
        # Not among the saved tensors: its values are not needed, so they may change in place.
        ctx.source = next(tensor for tensor in (*parts, rhs) if tensor.requires_grad)
        ctx.save_for_backward(solution, *parts)
        return solution.view_as(solution)

    @staticmethod
    def backward(ctx, *gradients):  # noqa: D102
        x, *parts = ctx.saved_tensors
        with torch.no_grad():
            g = ctx.adjoint(gradients[0])
        g = differentiable_no_further(g, ctx.source)
        in_parts = [None] * len(parts)
        if any(ctx.needs_input_grad[4:]):
            left, right = torch.cat([g, x], -1), torch.cat([x, g], -1)
            in_parts = ctx.representation_tree(*parts)._bilinear_derivative(-left / 2, right)
        return None, None, None, g, *in_parts


class _OnceDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.view_as(values)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        return differentiable_no_further(gradients[0], *ctx.saved_tensors)


def once_differentiable(values: Tensor) -> Tensor:
    """`values`, whose gradient cannot be differentiated again."""
    return _OnceDifferentiable.apply(values)
