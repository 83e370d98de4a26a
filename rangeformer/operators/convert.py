"""`as_operator`: every way people hold a matrix, checked before any work is done."""

import numbers
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import scipy.sparse
import torch

from rangeformer.arrays import as_floating_tensor, is_array
from rangeformer.operators.base import MatrixOperator
from rangeformer.operators.dense import DenseOperator
from rangeformer.operators.lazy import from_linear_operator, is_linear_operator
from rangeformer.operators.products import ProductOperator, ScipyOperator
from rangeformer.operators.sparse import SparseOperator

_ACCEPTED = (
    "a torch tensor, a numpy array, a list of rows, a scipy.sparse matrix, a scipy or linear_operator "
    "LinearOperator, or a pair (matmul, shape)"
)


def as_operator(
    A: Any, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> MatrixOperator:
    """View a matrix as an operator whose reads are counted.

    Args:
        A: `(*batch, m, n)` torch tensor, numpy array or list of rows (half precision becomes float32, integers and
            booleans float64); scipy.sparse matrix; scipy `LinearOperator`; `linear_operator` LinearOperator (lazy
            kernels included); or a pair `(matmul, shape)` where `matmul` maps `(*batch, n, k)` tensors to
            `(*batch, m, k)`. A `MatrixOperator` is returned as it is.
        dtype: For a `(matmul, shape)` pair: the type its products work in (default float64).
        device: For a `(matmul, shape)` pair: where its products work (default CPU).

    Returns:
        The operator; `operator.reads` starts at zero.

    Raises:
        TypeError: If `A` is none of these, or complex.
        ValueError: If `A` is empty, masked, not a matrix, or holds NaN or infinity.

    Example:
        >>> import torch, rangeformer as rf
        >>> operator = rf.as_operator(torch.eye(3))
        >>> operator.matmul(torch.ones(3, 2)).sum().item(), operator.reads.matvecs
        (6.0, 2)
    """
    if isinstance(A, MatrixOperator):
        return A
    if isinstance(A, torch.Tensor) or is_array(A):
        return DenseOperator(_checked_tensor(A))
    if scipy.sparse.issparse(A):
        return _checked_sparse(A)
    if is_linear_operator(A):
        _check_shape(A.shape)
        if A.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"`A` must be float32 or float64. Got a LinearOperator of {A.dtype}.")
        operator = from_linear_operator(A)
        if isinstance(operator, DenseOperator):
            _check_finite(operator.matrix)
        return operator
    if isinstance(A, scipy.sparse.linalg.LinearOperator):
        _check_shape(A.shape)
        if A.dtype not in (np.float32, np.float64):
            raise TypeError(f"`A` must be float32 or float64. Got a scipy LinearOperator of {A.dtype}.")
        return ScipyOperator(A)
    if isinstance(A, tuple) and len(A) == 2 and callable(A[0]):
        if not isinstance(A[1], Sequence) or not all(isinstance(size, numbers.Integral) for size in A[1]):
            raise TypeError(f"`A` must be a pair (matmul, shape) with a tuple of integers as shape. Got {A[1]!r}.")
        _check_shape(tuple(A[1]))
        dtype = torch.float64 if dtype is None else dtype
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"`dtype` must be torch.float32 or torch.float64. Got {dtype}.")
        product = cast("Callable[[torch.Tensor], torch.Tensor]", A[0])
        return ProductOperator(product, torch.Size(A[1]), dtype, torch.device(device or "cpu"))
    raise TypeError(f"`A` must be {_ACCEPTED}. Got {type(A).__name__}.")


def _check_shape(shape: Any) -> None:
    if len(shape) < 2:
        raise ValueError(f"`A` must have shape (*batch, m, n). Got {tuple(shape)}.")
    if min(shape) <= 0:
        raise ValueError(f"`A` must not be empty. Got shape {tuple(shape)}.")


def _checked_tensor(A: Any) -> torch.Tensor:
    if isinstance(A, torch.Tensor) and A.layout != torch.strided:
        raise TypeError(f"`A` must be a dense tensor. Got layout {A.layout}; pass scipy.sparse.")
    A = as_floating_tensor("A", A)
    _check_shape(A.shape)
    _check_finite(A)
    return A


def _check_finite(A: torch.Tensor) -> None:
    # The sum is one fast pass and spreads NaN and infinity; only a bad sum is worth a closer look.
    if not torch.isfinite(A.detach().sum()) and not torch.isfinite(A.detach()).all():
        count = int((~torch.isfinite(A.detach())).sum())
        raise ValueError(f"`A` must be finite. Got {count} NaN or infinite entries.")


def _checked_sparse(A: Any) -> SparseOperator:
    _check_shape(A.shape)
    if A.dtype.kind in "biu":
        A = A.astype(np.float64)
    if A.dtype not in (np.float32, np.float64):
        raise TypeError(f"`A` must be real, float32 or float64. Got a sparse matrix of {A.dtype}.")
    if not np.isfinite(scipy.sparse.csr_array(A).data).all():
        raise ValueError("`A` must be finite. Got NaN or infinite entries in a sparse matrix.")
    return SparseOperator(A)
