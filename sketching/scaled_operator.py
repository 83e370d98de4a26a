"""A matrix times a power of two, so that its squares stay in the range of its type: what LAPACK's drivers do."""

import math
from collections.abc import Callable

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.shapes import Float, Int, Tensor

# float32 numbers are squared in float64 where it matters; of float64 numbers fourth powers are taken, and summed
_SAFE_EXPONENT = {torch.float32: 40, torch.float64: 200}
_LARGEST_EXPONENT = {torch.float32: 128, torch.float64: 1024}

Product = Callable[[Tensor], Tensor]


def exponent_for(peak: float, dtype: torch.dtype) -> int:
    """The power of two to divide numbers by so that squares are safe; zero where they are.

    Args:
        peak: The largest magnitude.
        dtype: Of the numbers, float32 or float64.
    """
    exponent = math.frexp(peak)[1]
    return exponent if peak > 0 and abs(exponent) > _SAFE_EXPONENT[dtype] else 0


def times_power_of_two(values: Tensor, exponent: int) -> Tensor:
    """Values times 2^exponent, where 2^exponent itself may be out of range.

    Args:
        values: Of any shape.
        exponent: Of either sign; with zero the values come back as they are.
    """
    if exponent == 0:
        return values
    half = exponent // 2
    return values * 2.0**half * 2.0 ** (exponent - half)


def restored(values: Tensor, exponent: int, dtype: torch.dtype, what: str) -> Tensor:
    """What was computed of 2^-exponent A, for A, in A's type.

    Args:
        values: Of 2^-exponent A.
        exponent: Of the scaling.
        dtype: Of the result.
        what: The name of the values in the message, a plural.

    Raises:
        ValueError: If the type does not hold them.
    """
    result = times_power_of_two(values.to(torch.float64), exponent).to(dtype) if exponent else values.to(dtype)
    if exponent and not bool(torch.isfinite(result).all()):
        peak = math.log10(float(values.abs().max())) + exponent * math.log10(2)
        raise ValueError(
            f"{what} must be in the range of {dtype}. Got one of about 1e{peak:+.0f}; pass the matrix divided by a "
            f"power of two, or in a wider type."
        )
    return result


class ScaledOperator(MatrixOperator):
    """2^-exponent A with A's cost counts.

    The exponent is found in the first product, or the diagonal, of A. It is zero, and every number of A is passed on as
    it is, unless they leave the safe range. Rows and columns that are read before come as they are.

    A first product that overflows, or is so small that digits are lost, is repeated with other vectors: a further pass.

    Args:
        operator: A, one matrix.

    Attributes:
        operator: A.
        exponent: Zero for matrices of ordinary size.
    """

    def __init__(self, operator: MatrixOperator):
        super().__init__(operator.shape, operator.dtype, operator.device)
        self.reads = operator.reads
        self.has_entries = operator.has_entries
        self.operator, self.exponent = operator, 0
        self._known = False

    @property
    def requires_grad(self) -> bool:
        """As A."""
        return self.operator.requires_grad

    def matmul(self, vectors: Float[Tensor, "n k"]) -> Float[Tensor, "m k"]:
        """See `MatrixOperator.matmul`."""
        return self._product(self.operator.matmul, vectors)

    def rmatmul(self, vectors: Float[Tensor, "m k"]) -> Float[Tensor, "n k"]:
        """See `MatrixOperator.rmatmul`."""
        return self._product(self.operator.rmatmul, vectors)

    def rows(self, index: Int[Tensor, " c"]) -> Float[Tensor, "c n"]:
        """See `MatrixOperator.rows`."""
        return times_power_of_two(self.operator.rows(index), -self.exponent)

    def columns(self, index: Int[Tensor, " c"]) -> Float[Tensor, "m c"]:
        """See `MatrixOperator.columns`."""
        return times_power_of_two(self.operator.columns(index), -self.exponent)

    def entries(self, rows: Int[Tensor, " p"], columns: Int[Tensor, " p"]) -> Float[Tensor, " p"]:
        """See `MatrixOperator.entries`."""
        return times_power_of_two(self.operator.entries(rows, columns), -self.exponent)

    def diagonal(self) -> Float[Tensor, " n"]:
        """See `MatrixOperator.diagonal`."""
        diagonal = self.operator.diagonal()
        peak = _peak(diagonal)
        if not self._known and 0 < peak < math.inf:
            self._known, self.exponent = True, exponent_for(peak, self.dtype)
        return times_power_of_two(diagonal, -self.exponent)

    def _matmul(self, vectors: Tensor) -> Tensor:
        return self._product(self.operator._matmul, vectors)

    def _rmatmul(self, vectors: Tensor) -> Tensor:
        return self._product(self.operator._rmatmul, vectors)

    def _product(self, multiply: Product, vectors: Tensor) -> Tensor:
        if self._known:
            # half of it before and half after: neither vectors nor products leave the range on the way
            before = -self.exponent // 2
            return times_power_of_two(multiply(times_power_of_two(vectors, before)), -self.exponent - before)
        product, shift = multiply(vectors), 0
        peak, limits = _peak(product), torch.finfo(self.dtype)
        half = _LARGEST_EXPONENT[self.dtype] // 2
        if not math.isfinite(peak):
            shift = -half
        elif 0 < peak < limits.tiny / limits.eps:
            shift = half
        if shift:
            product = multiply(times_power_of_two(vectors, shift))
            peak = _peak(product)
        if peak == 0 or not math.isfinite(peak):  # zero, or NaN and infinity of A's own
            return product
        self._known = True
        self.exponent = exponent_for(peak, self.dtype) if shift == 0 else math.frexp(peak)[1] - shift
        return times_power_of_two(product, -self.exponent - shift)


def stored(operator: MatrixOperator) -> MatrixOperator:
    """The matrix as it was given, without scaling.

    Args:
        operator: A, or a `ScaledOperator` around it.
    """
    while isinstance(operator, ScaledOperator):
        operator = operator.operator
    return operator


def _peak(values: Tensor) -> float:
    """The largest magnitude; NaN or infinity where there is one."""
    return float(values.detach().abs().max()) if values.numel() else 0.0
