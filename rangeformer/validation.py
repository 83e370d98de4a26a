"""Checks of arguments, made before any work; every message names the argument and what to do."""

import math
import numbers
from typing import Any

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.shapes import Tensor


def check_square(operator: MatrixOperator) -> None:
    """A must be square."""
    if operator.num_rows != operator.num_columns:
        raise ValueError(
            f"`A` must be square, (*batch, n, n). Got {tuple(operator.shape)}; for least squares solve the normal "
            "equations A.mT @ A, for low rank see `sketching`."
        )


def check_symmetric(operator: MatrixOperator) -> None:
    """A must be symmetric, as seen by two random vectors: z^T A w = w^T A z up to rounding."""
    worst, tolerance = _asymmetry(operator)
    if worst > tolerance:
        raise ValueError(
            f"`A` must be symmetric. Got a relative asymmetry of {worst:.1e} (rounding allows {tolerance:.1e}); pass "
            "(A + A.mT) / 2 if it should be symmetric, or A.mT @ A with A.mT @ rhs to solve a general system."
        )


def is_symmetric(operator: MatrixOperator) -> bool:
    """Whether A passes for symmetric, by the test of `check_symmetric`; raises if A is not finite."""
    worst, tolerance = _asymmetry(operator)
    return worst <= tolerance


def _asymmetry(operator: MatrixOperator) -> tuple[float, float]:
    """The largest relative asymmetry two random vectors see in A, and what rounding allows."""
    generator = torch.Generator().manual_seed(0)
    shape = (*operator.batch_shape, operator.num_rows, 2)
    vectors = torch.randn(shape, generator=generator, dtype=operator.dtype).to(operator.device)
    with torch.no_grad():
        images = operator.matmul(vectors)
    vectors, images = vectors.to(torch.float64), images.to(torch.float64)
    # Images of size one: squares of those of a tiny or huge A would leave the range of floating point.
    peak = images.abs().amax((-2, -1), keepdim=True)
    images = images / torch.where(peak > 0, peak, torch.ones_like(peak))
    # The scale must be that of the terms of the two inner products, or it could vanish with them.
    products = vectors.mT @ images
    gap = (products[..., 0, 1] - products[..., 1, 0]).abs()
    scale = torch.linalg.vector_norm(vectors, dim=-2) * torch.linalg.vector_norm(images, dim=-2)
    tolerance = 100 * math.sqrt(operator.num_rows) * torch.finfo(operator.dtype).eps
    worst = float((gap / scale.amax(-1).clamp_min(torch.finfo(torch.float64).tiny)).max())
    if not math.isfinite(worst):
        raise ValueError("`A` must be finite. Got NaN or infinity in a product with it.")
    return worst, tolerance


def check_rhs(operator: MatrixOperator, rhs: Tensor) -> Tensor:
    """Rhs as `(*batch, n, k)` in A's batch shape.

    Raises:
        TypeError: Not a tensor, or of another dtype than A.
        ValueError: Wrong shape or device, or not finite.
    """
    if not isinstance(rhs, Tensor):
        raise TypeError(f"`rhs` must be a tensor, an array or a list. Got {type(rhs).__name__}.")
    n = operator.num_rows
    expected = f"(n,) or (*batch, n, k) with n = {n}"
    columns = rhs.unsqueeze(-1) if rhs.dim() == 1 else rhs
    if rhs.dim() == 0 or columns.shape[-2] != n or columns.shape[-1] == 0:
        raise ValueError(f"`rhs` must have shape {expected}. Got {tuple(rhs.shape)}.")
    if rhs.dtype != operator.dtype:
        raise TypeError(f"`rhs` must have A's dtype {operator.dtype}. Got {rhs.dtype}; convert one of them.")
    if rhs.device != operator.device:
        raise ValueError(
            f"`rhs` must be on A's device {operator.device}. Got {rhs.device}; move one of them with .to()."
        )
    try:
        shape = torch.broadcast_shapes(columns.shape[:-2], operator.batch_shape)
    except RuntimeError:
        shape = None
    if shape != operator.batch_shape:
        raise ValueError(
            f"`rhs` must have a batch shape that broadcasts to A's {tuple(operator.batch_shape)}. "
            f"Got {tuple(rhs.shape)}."
        )
    if not torch.isfinite(columns.detach()).all():
        raise ValueError("`rhs` must be finite. Got NaN or infinite entries.")
    return columns.expand(*operator.batch_shape, *columns.shape[-2:])


def check_tolerance(name: str, value: float) -> None:
    """A tolerance is a finite positive number."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ValueError(f"`{name}` must be a positive number. Got {value!r}.")


def check_count(name: str, value: int | None, *, least: int, optional: bool = False) -> None:
    """A count is an integer of at least `least`; None where it is optional."""
    if value is None and optional:
        return
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"`{name}` must be an integer >= {least}{' or None' * optional}. Got {value!r}.")


def like(rhs: object) -> dict[str, Any]:
    """What a pair (matmul, shape) does not say: dtype and device of the right-hand side it will meet."""
    if not isinstance(rhs, Tensor) or rhs.dtype not in (torch.float32, torch.float64):
        return {}
    return {"dtype": rhs.dtype, "device": rhs.device}
