"""Answers that can be differentiated once, and say so when asked for more.

The gradients of `linear_solve`, `logdet` and `inv_quad_logdet` are computed from solutions that autograd takes for constants. A second
derivative through them would silently miss terms. `torch.autograd.function.once_differentiable` does not notice when the
incoming gradient is a constant, as of a sum; tying the gradient to an input of the answer does.
"""

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


class _Last(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, source: Tensor):
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor):
        raise RuntimeError(
            "rangeformer's solves and log-determinants can be differentiated once, not twice: second derivatives would miss "
            "terms. For small matrices use torch.linalg.solve and torch.linalg.slogdet."
        )
