"""Matrices known through their products alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from rangeformer.operators.base import MatrixOperator
from rangeformer.shapes import Tensor


class ProductOperator(MatrixOperator):
    """A callable `vectors -> A @ vectors`, with autograd through whatever it closes over."""

    def __init__(
        self,
        product: Callable[[Tensor], Tensor],
        shape: torch.Size,
        dtype: torch.dtype,
        device: torch.device,
    ):
        super().__init__(shape, dtype, device)
        self._product = product

    def _matmul(self, vectors: Tensor) -> Tensor:
        # A copy: a product may write over what it is given, and a basis is used again.
        result = self._product(vectors.clone())
        expected = (*vectors.shape[:-2], self.num_rows, vectors.shape[-1])
        if not isinstance(result, Tensor) or tuple(result.shape) != expected:
            came = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise ValueError(
                f"`A`'s product callable must return a tensor of shape {expected} for vectors of "
                f"shape {tuple(vectors.shape)}. Got {came}."
            )
        if not result.is_floating_point() or result.device != self.device:
            raise ValueError(
                f"`A`'s product callable must return real floating-point numbers on {self.device}, as it is given. Got "
                f"{result.dtype} on {result.device}."
            )
        return result.to(self.dtype)


class ScipyOperator(MatrixOperator):
    """A `scipy.sparse.linalg.LinearOperator`; products run in NumPy, without autograd."""

    def __init__(self, operator: Any):
        self._operator = operator
        dtype = torch.float32 if operator.dtype == np.float32 else torch.float64
        super().__init__(torch.Size(operator.shape), dtype, torch.device("cpu"))

    @property
    def requires_grad(self) -> bool:
        return False

    def _matmul(self, vectors: Tensor) -> Tensor:
        return self._checked(self._operator.matmat(vectors.detach().numpy().copy()))

    def _rmatmul(self, vectors: Tensor) -> Tensor:
        return self._checked(self._operator.rmatmat(vectors.detach().numpy().copy()))

    def _checked(self, product: Any) -> Tensor:
        product = np.asarray(product)
        if product.dtype.kind != "f":
            raise ValueError(f"`A`'s products must be real floating-point numbers. Got {product.dtype}.")
        return torch.from_numpy(np.require(product, requirements=["C", "W"])).to(self.dtype)
