"""Derivatives of solves and of quadratic forms A^-1, of any order: a derivative of a solve is another certified solve.

What is stochastic, the log-determinant and what is computed with it, is differentiated once; a second time is refused
as `rangeformer.autograd` refuses it, because solutions count as constants there.
"""

from collections.abc import Callable
from typing import Any

import torch
from linear_operator.operators import LinearOperator
from torch import Tensor

from gp_integration.batch_folding import BatchFold
from rangeformer.autograd import differentiable_no_further

Solve = Callable[[LinearOperator, Tensor], Tensor]
"""A and `(*any, n, k)` right-hand sides to the differentiable solution."""


class SolveDerivative(torch.autograd.Function):
    """The identity on x = A^-1 rhs whose derivative is that of the solve.

    As in linear_operator, the gradient in A is symmetric: -(g x^T + x g^T) / 2 with g = A^-1 gradient.
    """

    @staticmethod
    def forward(ctx: Any, solution: Tensor, representation_tree: Any, solve: Solve, rhs: Tensor, *parts: Tensor):
        """The solution; `parts` are A's tensors, from which `representation_tree` builds it again."""
        ctx.representation_tree, ctx.solve = representation_tree, solve
        output = solution.view_as(solution)
        # The output, not the argument: differentiated again, it leads back to A and rhs.
        ctx.save_for_backward(output, *parts)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor):
        """One more solve, with a graph of its own if there will be second derivatives."""
        x, *parts = ctx.saved_tensors
        matrix = ctx.representation_tree(*parts)
        g = ctx.solve(matrix, gradients[0])
        in_parts = [None] * len(parts)
        if any(ctx.needs_input_grad[4:]):
            left, right = torch.cat([g, x], -1), torch.cat([x, g], -1)
            in_parts = matrix._bilinear_derivative(-left / 2, right)
        return None, None, None, g, *in_parts


class QuadraticDerivative(torch.autograd.Function):
    """The identity on B^T A^-1 B whose derivative is dB^T X + X^T dB - X^T dA X, with X ~ A^-1 B.

    The error is of the square of X's in the value, and of X's in the derivative.
    """

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, solution: Tensor, representation_tree: Any, solve: Solve, cross: Tensor, *parts: Tensor
    ):
        """The value; `parts` as for `SolveDerivative`."""
        ctx.representation_tree, ctx.solve = representation_tree, solve
        ctx.save_for_backward(solution, cross, *parts)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor):
        """From X; for second derivatives X is computed once more, as a function of A and B."""
        X, cross, *parts = ctx.saved_tensors
        matrix = ctx.representation_tree(*parts)
        if torch.is_grad_enabled():
            X = ctx.solve(matrix, cross)
        image = X @ (gradients[0] + gradients[0].mT).to(X.dtype)
        in_parts = [None] * len(parts)
        if any(ctx.needs_input_grad[5:]):
            fold = BatchFold.of(matrix.shape[:-2], X)
            in_parts = matrix._bilinear_derivative(-fold.fold(image) / 2, fold.fold(X))
        return None, None, None, None, image, *in_parts


class _OnceDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return differentiable_no_further(gradients[0], *ctx.saved_tensors)


def once_differentiable(values: Tensor) -> Tensor:
    """`values`, whose gradient cannot be differentiated again."""
    return _OnceDifferentiable.apply(values)
