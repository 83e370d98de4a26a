"""First derivatives of solves and of what is built from them; second ones are refused, not guessed."""

import torch
from torch import Tensor


class SolveDerivative(torch.autograd.Function):
    """The identity on x = A^-1 rhs whose derivative is that of the solve.

    As in linear_operator, the gradient in A is symmetric: -(g x^T + x g^T) / 2 with g = A^-1 gradient.
    """

    @staticmethod
    def forward(ctx, solution, representation_tree, adjoint, rhs, *parts):  # noqa: D102
        ctx.representation_tree, ctx.adjoint = representation_tree, adjoint
        ctx.save_for_backward(solution, *parts)
        return solution.view_as(solution)

    @staticmethod
    def backward(ctx, *gradients):  # noqa: D102
        _refuse_second_derivative()
        x, *parts = ctx.saved_tensors
        g = ctx.adjoint(gradients[0])
        in_parts = [None] * len(parts)
        if any(ctx.needs_input_grad[4:]):
            left, right = torch.cat([g, x], -1), torch.cat([x, g], -1)
            in_parts = ctx.representation_tree(*parts)._bilinear_derivative(-left / 2, right)
        return None, None, None, g, *in_parts


class FirstDerivative(torch.autograd.Function):
    """The identity, which refuses to be differentiated twice."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:  # noqa: D102
        return values.view_as(values)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:  # noqa: D102
        _refuse_second_derivative()
        return gradients[0]


def _refuse_second_derivative() -> None:
    if torch.is_grad_enabled():  # in a backward pass, only with create_graph=True
        raise NotImplementedError(
            "RangeFormer gives first derivatives only, and would silently miss a part of the second ones. Compute "
            "them (create_graph=True) inside settings.use_rangeformer(False)."
        )
