"""A matrix in units of its own size: what squares and sums of its entries would otherwise leave the range of the type.

LAPACK's drivers scale a matrix whose entries are near the ends of the range, and so do we: by a power of two, which
changes no digit, and each matrix of a batch by its own. Sizes are read off the first product that is made anyway;
matrices of ordinary size are left alone, bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from rangeformer.krylov.certificate import ScaledColumns, column_norms
from rangeformer.operators import MatrixOperator
from rangeformer.shapes import Bool, Float, Tensor

# Exponents of two within which squares of entries, and products of those with n, stay far from the ends of the range.
_ORDINARY = {torch.float32: 30, torch.float64: 100}
# What products that overflow, and products that vanish, are made with instead.
_SMALLER = {torch.float32: -40, torch.float64: -64}
_LARGER = {torch.float32: 100, torch.float64: 500}
# Powers of two beyond these are not ordinary numbers of the type.
_LIMIT = {torch.float32: 120, torch.float64: 1000}


class ScaledOperator(MatrixOperator):
    """A / 2^exponent, with A's cost counts.

    Args:
        operator: A.
        exponent: `(*batch, 1, 1)` where it is known; from the first product if None, and zero until then.

    Attributes:
        exponent: `(*batch, 1, 1)` whole numbers, float64; zero for matrices of ordinary size.
    """

    def __init__(self, operator: MatrixOperator, *, exponent: Float[Tensor, "*batch 1 1"] | None = None):
        super().__init__(operator.shape, operator.dtype, operator.device)
        self.reads, self.has_entries = operator.reads, operator.has_entries
        self._operator, self._is_measured = operator, exponent is not None
        zero = torch.zeros(*operator.batch_shape, 1, 1, dtype=torch.float64, device=operator.device)
        self.exponent = zero if exponent is None else exponent
        self._is_ordinary = not bool(self.exponent.any())

    @property
    def requires_grad(self) -> bool:
        """As A's."""
        return self._operator.requires_grad

    @property
    def sizes(self) -> Float[Tensor, "*batch n"] | None:
        """A's, in units."""
        sizes = self._operator.sizes
        return sizes if sizes is None or self._is_ordinary else sizes * torch.exp2(-self.exponent.squeeze(-1) / 2)

    def restored(
        self, numbers: Float[Tensor, "*batch k"], tolerance: Float[Tensor, "*batch 1"], *, power: int = 1
    ) -> tuple[Float[Tensor, "*batch k"], Bool[Tensor, "*batch k"]]:
        """What belongs to A, in its type, of what belongs to A in units; and where the range of the type holds it.

        Args:
            numbers: Values that grow like A^power.
            tolerance: What the type may change of them; more than its rounding is allowed in any case.
            power: 1, or -1 for what the inverse gives.
        """
        exponent = power * self.exponent.squeeze(-1)
        value = (numbers if self._is_ordinary else shifted(numbers, exponent)).to(self.dtype)
        known = numbers.to(torch.float64)
        change = (shifted(value, -exponent) - known).abs()
        rounding = 4 * torch.finfo(self.dtype).eps * known.abs()
        return value, (change <= torch.maximum(tolerance.to(torch.float64), rounding)) | ~known.isfinite()

    def transposed(self, operator: MatrixOperator) -> "ScaledOperator":
        """The same units for A.mT.

        Args:
            operator: A.mT.
        """
        return ScaledOperator(operator, exponent=self.exponent if self._is_measured else None)

    def matmul_precise(self, vectors: Tensor) -> Tensor:
        """A's, in units."""
        if self._is_ordinary:
            return self._operator.matmul_precise(vectors)
        before = self._before()
        return shifted(self._operator.matmul_precise(shifted(vectors, before)), -self.exponent - before)

    def _matmul(self, vectors: Tensor) -> Tensor:
        return self._product(self._operator._matmul, vectors)

    def _rmatmul(self, vectors: Tensor) -> Tensor:
        return self._product(self._operator._rmatmul, vectors)

    def _columns(self, index: Tensor) -> Tensor:
        return self._in_units(self._operator._columns(index))

    def _rows(self, index: Tensor) -> Tensor:
        return self._in_units(self._operator._rows(index))

    def _diagonal(self) -> Tensor:
        return self._in_units(self._operator._diagonal().unsqueeze(-1)).squeeze(-1)

    def _entries(self, rows: Tensor, columns: Tensor) -> Tensor:
        return self._in_units(self._operator._entries(rows, columns).unsqueeze(-1)).squeeze(-1)

    def _to_dense(self, dtype: torch.dtype) -> Tensor:
        return self._in_units(self._operator._to_dense(dtype))

    def _in_units(self, numbers: Tensor) -> Tensor:
        return numbers if self._is_ordinary else shifted(numbers, -self.exponent).to(numbers.dtype)

    def _before(self) -> Tensor:
        """The part of the units that vectors can take before the product without losing digits."""
        return (-self.exponent).clamp(_SMALLER[self.dtype], _LARGER[self.dtype])

    def _product(self, product: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
        if self._is_measured:
            if self._is_ordinary:
                return product(vectors)
            before = self._before()
            image = product(shifted(vectors, before).to(vectors.dtype))
            return shifted(image, -self.exponent - before).to(image.dtype)
        self._is_measured = True
        image = product(vectors)
        peak = _peak(image)
        if bool(((peak - 1).abs() <= _ORDINARY[self.dtype]).all()):
            return image
        # Sums may overflow where entries do not, and products of tiny entries lose their digits: try in other units.
        tiny = torch.frexp(torch.tensor(torch.finfo(self.dtype).tiny, dtype=torch.float64)).exponent
        low = peak < tiny + _ORDINARY[self.dtype]
        other = torch.where(low, _LARGER[self.dtype], torch.where(peak.isinf(), _SMALLER[self.dtype], 0)).to(peak)
        if bool(other.any()):
            self.reads.passes += 1
            self.reads.matvecs += vectors.shape[-1]
            image = product(shifted(vectors, other).to(vectors.dtype))
            peak = _peak(image) - other
        outside = ((peak - 1).abs() > _ORDINARY[self.dtype]) & peak.isfinite()
        limit = _LIMIT[self.dtype]
        self.exponent = torch.where(outside, peak, torch.zeros_like(peak)).clamp(-limit, limit)
        self._is_ordinary = not bool(self.exponent.any())
        return shifted(image, -other - self.exponent).to(image.dtype)


def _peak(image: Tensor) -> Float[Tensor, "*batch 1 1"]:
    """The exponent of two of the largest entry: -inf where all are zero, inf where one is not finite."""
    largest = image.detach().abs().to(torch.float64).amax((-2, -1), keepdim=True)
    exponent = torch.frexp(largest).exponent.to(torch.float64)
    exponent = torch.where(largest > 0, exponent, torch.full_like(exponent, -torch.inf))
    return torch.where(largest.isfinite(), exponent, torch.full_like(exponent, torch.inf))


def shifted(numbers: Tensor, exponent: Tensor) -> Tensor:
    """Numbers times 2^exponent, float64; in two steps, as the power alone may leave the range.

    Args:
        numbers: Of any type.
        exponent: Whole numbers, float64.
    """
    half = (exponent / 2).floor()
    return numbers.to(torch.float64) * torch.exp2(half) * torch.exp2(exponent - half)


@dataclass(frozen=True)
class ColumnsInUnits:
    """Solutions of A x = rhs from those of (A in units) y = (rhs at norm one), and back.

    Attributes:
        columns: The right-hand sides.
        exponent: `(*batch, 1, k)`, powers of two that y times the norm of the columns lacks.
    """

    columns: ScaledColumns
    exponent: Float[Tensor, "*batch 1 k"]

    @classmethod
    def of(cls, columns: ScaledColumns, operator: ScaledOperator) -> "ColumnsInUnits":
        """Of right-hand sides and the matrix."""
        return cls(columns, torch.log2(columns.size).round() - operator.exponent)

    def restored(
        self, answer: Float[Tensor, "*batch n k"], dtype: torch.dtype
    ) -> tuple[Float[Tensor, "*batch n k"], Bool[Tensor, "*batch k"]]:
        """The solutions in their type, and which columns it holds to all its digits; zero for those beyond its range.

        Args:
            answer: y.
            dtype: Of the solutions.
        """
        wide = answer.to(torch.float64) * self.columns.norms.unsqueeze(-2)
        value = shifted(wide, self.exponent).to(dtype)
        usable = value.isfinite().all(-2, keepdim=True) & ~self.columns.is_zero.unsqueeze(-2)
        value = torch.where(usable, value, torch.zeros_like(value))
        lost = column_norms(self.in_units(value) - torch.where(wide.isfinite(), wide, torch.zeros_like(wide)))
        allowed = 4 * torch.finfo(dtype).eps * column_norms(wide.nan_to_num())
        return value, (lost <= allowed) | self.columns.is_zero

    def in_units(self, value: Float[Tensor, "*batch n k"]) -> Float[Tensor, "*batch n k"]:
        """Solutions of (A in units) x = (rhs in units of its size), float64."""
        back = shifted(value, -self.exponent)
        return torch.where(value == 0, torch.zeros_like(back), back)


def solution_beyond_range(dtype: torch.dtype) -> str:
    """A sentence on solutions that their type cannot hold, and what to do.

    Args:
        dtype: Their type.
    """
    wider = ", or pass A and rhs in float64" if dtype == torch.float32 else ""
    return (
        f"Not converged: a solution lies beyond the range of {dtype}, or so near to its lower end that digits are lost."
        f" Divide `rhs` by a power of two and multiply the solution by it where that has the range{wider}."
    )


def beyond_range(what: str, dtype: torch.dtype) -> str:
    """A sentence on values that their type cannot hold, and what to do.

    Args:
        what: The values.
        dtype: Their type.
    """
    wider = " or pass A in float64," if dtype == torch.float32 else ""
    return (
        f"Not converged: {what} lies beyond the range of {dtype}, or so near to its lower end that digits are lost."
        f" Divide `A` by its largest entry,{wider} and scale the answer back."
    )
