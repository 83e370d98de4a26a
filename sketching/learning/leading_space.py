"""The leading left singular space of a table, differentiable."""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from rangeformer.shapes import Float, Tensor

_LEAST_GAP = 1e-3  # of the last eigenvalue kept: two directions nearer than that are exchanged at no cost
_RIDGE = 1e-12


class _LeadingSpace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, count: int) -> Tensor:
        gram = table.mT @ table
        values, vectors = torch.linalg.eigh(gram)
        values, vectors = values.flip(-1), vectors.flip(-1)
        floor = _RIDGE * values[0].clamp_min(torch.finfo(table.dtype).tiny)
        values = values.clamp_min(floor)
        left = torch.linalg.qr(table @ (vectors * values.rsqrt())[:, :count]).Q
        ctx.save_for_backward(table, left, vectors, values)
        return left

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), (table, left, vectors, values) = gradients, ctx.saved_tensors
        count = left.shape[-1]
        outside = gradient - left @ (left.mT @ gradient)
        # turn to the eigenvectors, in which the perturbation is diagonal
        scaled = vectors * values.rsqrt()
        kept, rest = table @ scaled[:, :count], table @ scaled[:, count:]
        turned = outside @ (left.mT @ kept)
        inside = rest.mT @ turned  # components along the eigenvectors cut off
        gap = (values[:count] - values[count:].unsqueeze(-1)).clamp_min(_LEAST_GAP * values[count - 1])
        moved = rest @ (inside / gap) + (turned - rest @ inside) / values[:count]
        return moved @ (kept.mT @ table) + kept @ (moved.mT @ table), None


def leading_space(table: Float[Tensor, "n p"], count: int) -> Float[Tensor, "n l"]:
    """Orthonormal basis of the `count` leading left singular vectors of a table.

    Functions of the *space* have their exact derivatives, also where singular values in it coincide: by first-order
    perturbation of the eigenvectors of K = X X^T,  d u_i = sum_{j > l} u_j (u_j^T dK u_i) / (l_i - l_j) + (I - U U^T)
    dK u_i / l_i,  in which only gaps across the cut appear (Stewart & Sun, Matrix Perturbation Theory, 1990, Section
    V.2). What a function does with a rotation of the basis within the space is not differentiated.

    Args:
        table: X, float64, at least `count` columns.
        count: l.

    Raises:
        ValueError: If the table has fewer columns, or rows, than asked for.
    """
    if count > min(table.shape):
        raise ValueError(f"`count` must be at most {min(table.shape)} for a table {tuple(table.shape)}. Got {count}.")
    space = _LeadingSpace.apply(table, count)
    assert isinstance(space, torch.Tensor)
    return space
