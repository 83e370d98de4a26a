"""Checks that the calls share, and sketches by name."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from rangeformer import MatrixOperator, as_operator
from rangeformer.deprecation import warn_renamed
from rangeformer.validation import check_count
from sketching.out_of_core.memmaps import MemmapOperator
from sketching.out_of_core.row_blocks import MOST_SAMPLED_ENTRIES, OutOfCoreOperator
from sketching.scaled_operator import stored
from sketching.sketches import Gaussian, RangeFormerSketch, SampledRowSpace, Sketch, SparseSign, SubsampledTrig
from sketching.sketches.base import default_max_rows
from sketching.sketches.left_sketch import in_no_order, left_sketch
from sketching.sketches.shipped import trained_random_features

SKETCHES: dict[str, Callable[[], Sketch]] = {
    "gaussian": Gaussian,
    "sparse-sign": SparseSign,
    "trig": SubsampledTrig,
    "sampled-rows": SampledRowSpace,
    "rangeformer": lambda: RangeFormerSketch(trained_random_features()),
    "rangeformer-untrained": RangeFormerSketch,
}
"""Sketches that the calls know by name, and what makes them."""
_COMPLEX = (torch.complex32, torch.complex64, torch.complex128)


def as_sketch(sketch: str | Sketch) -> Sketch:
    """The sketch of a name, or the sketch itself.

    Args:
        sketch: A key of `SKETCHES`, or an object.

    Raises:
        TypeError: If it is neither.
        ValueError: If the name is not known.
    """
    if isinstance(sketch, Sketch):
        return sketch
    if not isinstance(sketch, str):
        raise TypeError(f"`sketch` must be a Sketch or one of {sorted(SKETCHES)}. Got {type(sketch).__name__}.")
    if sketch not in SKETCHES:
        raise ValueError(f"`sketch` must be a Sketch or one of {sorted(SKETCHES)}. Got {sketch!r}.")
    return SKETCHES[sketch]()


def renamed_tolerance(rtol: float | None, tolerance: float | None) -> float | None:
    """`rtol`, or what was given under its former name.

    Args:
        rtol: As the caller gave it.
        tolerance: Its former name; a value is used and warned of.
    """
    if tolerance is None:
        return rtol
    warn_renamed("`tolerance`", "`rtol`")
    return tolerance


def refuse_masked(name: str, A: Any) -> None:
    """A matrix with a mask is not one: reading it would take what lies under the mask for data.

    Args:
        name: Of the argument.
        A: What came; a NumPy or torch masked array, or a dask array of such.

    Raises:
        ValueError: If it is one.
    """
    held = getattr(A, "_meta", A) if type(A).__module__.startswith("dask.") else A
    if isinstance(held, np.ma.MaskedArray) or torch.masked.is_masked_tensor(held):
        raise ValueError(
            f"`{name}` must not be masked. Got a masked {'dask array' if held is not A else 'array'}; fill it first, "
            "with .filled(value), or impute what is missing."
        )


def one_matrix(A: Any) -> MatrixOperator:
    """A as an operator that is not a batch.

    Args:
        A: Anything `rangeformer.as_operator` reads; or a NumPy memory map or dask array, which are read block by block.
            Integers and booleans in memory are converted to float64, half precision to float32.

    Raises:
        TypeError: If A is nothing that can be read, or complex.
        ValueError: If A is masked, a batch, empty or not finite (of what is out of core, that shows in a product).
    """
    refuse_masked("A", A)
    _refuse_complex(A)
    if isinstance(A, np.memmap):
        return MemmapOperator(A)
    if "dask.array" in sys.modules and isinstance(A, sys.modules["dask.array"].Array):
        # who has such an array has dask, which is no dependency
        from sketching.out_of_core.dask_arrays import DaskOperator

        return DaskOperator(A)
    operator = as_operator(A)
    if operator.batch_shape:
        raise ValueError(f"`A` must be one matrix (m, n). Got {tuple(operator.shape)}; loop over the batch.")
    return operator


def _refuse_complex(A: Any) -> None:
    dtype = getattr(A, "dtype", None)
    if dtype in _COMPLEX or (isinstance(dtype, np.dtype) and dtype.kind == "c"):
        raise TypeError(
            f"`A` must be real. Got {dtype}; take its real part if the imaginary one is zero, or the real matrix "
            "[[X, -Y], [Y, X]] of A = X + iY, which has every singular value of A twice."
        )


def check_rank(operator: MatrixOperator, rank: int) -> None:
    """A rank is an integer between 1 and min(m, n).

    Args:
        operator: A.
        rank: What was asked for.

    Raises:
        ValueError: If it is not.
    """
    check_count("rank", rank, least=1)
    limit = min(operator.num_rows, operator.num_columns)
    if rank > limit:
        raise ValueError(f"`rank` must be at most min(m, n) = {limit}. Got {rank}.")


def rows_allowed(operator: MatrixOperator, rank: int, max_rows: int | None) -> int:
    """`max_rows`, or its default; out of core the default is bounded by what rows may take of the memory.

    Args:
        operator: A.
        rank: Directions wanted.
        max_rows: What the caller said.

    Raises:
        ValueError: If it is not an integer of at least 1, or more than half of the rows.
    """
    check_count("max_rows", max_rows, least=1, optional=True)
    if max_rows is None:
        allowed = default_max_rows(operator, rank)
        if isinstance(stored(operator), OutOfCoreOperator):
            bound = max(4 * rank, MOST_SAMPLED_ENTRIES // operator.num_columns)
            allowed = min(allowed, bound)
        return allowed
    if max_rows > max(1, operator.num_rows // 2):
        raise ValueError(
            f"`max_rows` must be at most half of what may be read, {operator.num_rows} rows or columns. Got "
            f"{max_rows}; "
            "to read all of A take a power iteration."
        )
    return max_rows


def draw_sketch(
    operator: MatrixOperator,
    distribution: Sketch,
    num_columns: int,
    max_rows: int,
    generator: torch.Generator,
    *,
    may_multiply: bool = False,
) -> torch.Tensor:
    """Omega, `(n, num_columns)`; out of core, what the sketch wants to see is fetched in one look.

    A left sketch of as many vectors as Omega has makes the call as expensive as a half power iteration. Its span alone
    *is* one; what the sketch makes of it is hardly ever worse, while what it makes of half as many vectors sometimes
    is.

    Args:
        operator: A.
        distribution: The sketch.
        num_columns: l.
        max_rows: Budget of rows.
        generator: Source.
        may_multiply: If A has no entries to read, let the sketch look at a left sketch A^T G instead.
    """

    def draw(matrix: MatrixOperator, source: torch.Generator) -> torch.Tensor:
        return distribution.draw(matrix, num_columns, max_rows=max_rows, generator=source)

    if may_multiply and distribution.looks and not operator.has_entries:
        count = min(num_columns, max_rows)
        omega = distribution.draw(
            left_sketch(operator, count, generator), num_columns, max_rows=count, generator=generator
        )
        return in_no_order(omega, generator)
    matrix = stored(operator)
    if not isinstance(matrix, OutOfCoreOperator):
        return draw(operator, generator)
    matrix.prepare(draw, generator)
    try:
        return draw(operator, generator)
    finally:
        matrix.release()
