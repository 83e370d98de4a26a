"""Trace and diagonal of a matrix known through its products, with the leading range taken out exactly.

Hutch++ (Meyer, Musco, Musco & Woodruff, "Hutch++: Optimal stochastic trace estimation", 2021, arXiv:2010.09649,
Algorithm 1): tr A = tr Q^T A Q + tr (I - Q Q^T) A (I - Q Q^T), the first exactly, the second from random signs; diag A
alike (Baston & Nakatsukasa, "Stochastic diagonal estimation", 2022, arXiv:2201.10684). Q is the range of any sketch, a
learned one included: the estimate is unbiased whatever Q is.
"""

from dataclasses import dataclass
from typing import Any

import torch

from rangeformer.operators import Reads
from rangeformer.randomness import SKETCH, generator_or_default
from rangeformer.shapes import Float, Tensor
from rangeformer.validation import check_count, check_square
from sketching.algorithms.error_estimate import check_finite
from sketching.arguments import as_sketch, draw_sketch, one_matrix, rows_allowed
from sketching.scaled_operator import ScaledOperator, restored
from sketching.sketches import Sketch


@dataclass(frozen=True)
class TraceEstimate:
    """A trace and its standard error.

    Attributes:
        value: The estimate.
        standard_error: Of the random part; 0 if Q spans everything.
        num_matvecs: Vectors multiplied by A.
        num_passes: Times A was read as a whole.
        num_entries: Entries read outside products.
    """

    value: float
    standard_error: float
    num_matvecs: int
    num_passes: int
    num_entries: int


@dataclass(frozen=True)
class DiagonalEstimate:
    """A diagonal and the standard errors of its entries.

    Attributes:
        value: `(n,)`.
        standard_error: `(n,)`.
        num_matvecs: Vectors multiplied by A.
        num_passes: Times A was read as a whole.
        num_entries: Entries read outside products.
    """

    value: Float[Tensor, " n"]
    standard_error: Float[Tensor, " n"]
    num_matvecs: int
    num_passes: int
    num_entries: int


def estimate_trace(
    A: Any,
    num_matvecs: int,
    *,
    sketch: str | Sketch = "rangeformer",
    max_rows: int | None = None,
    generator: torch.Generator | None = None,
) -> TraceEstimate:
    """Estimate tr A from at most `num_matvecs` products, a third each for the range, its part and the rest.

    Args:
        A: `(n, n)`, anything `rangeformer.as_operator` reads.
        num_matvecs: Products allowed, at least 6.
        sketch: As for `randomized_svd`.
        max_rows: As for `randomized_svd`.
        generator: Source of all randomness; a fixed one if None.

    Returns:
        The estimate with its standard error.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: Wrong value of an argument; A not square or not finite.

    Example:
        >>> import torch, sketching
        >>> round(sketching.estimate_trace(torch.diag(torch.tensor([9.0, 1.0, 0.0, 0.0])), 9).value, 4)
        10.0
    """
    operator, Q, probes, before = _prepare(A, num_matvecs, sketch, max_rows, generator)
    with torch.no_grad():
        size = Q.shape[1]
        image_Q, image = operator.matmul(torch.cat([Q, probes], -1)).to(torch.float64).tensor_split([size], -1)
        known = float((Q.to(torch.float64) * image_Q).sum())
        rest = (probes.to(torch.float64) * image).sum(0)
        value = known + float(rest.mean()) if rest.numel() else known
        error = float(rest.std()) / rest.numel() ** 0.5 if rest.numel() > 1 else 0.0
    return estimate_of(value, error, operator.exponent, operator.reads.since(before))


def estimate_diagonal(
    A: Any,
    num_matvecs: int,
    *,
    sketch: str | Sketch = "rangeformer",
    max_rows: int | None = None,
    generator: torch.Generator | None = None,
) -> DiagonalEstimate:
    """Estimate diag A from at most `num_matvecs` products, a third each for the range, its part and the rest.

    diag A = diag(Q Q^T A) + E[z * (I - Q Q^T) A z], z random signs.

    Args:
        A: `(n, n)`, multiplied from both sides.
        num_matvecs: Products allowed, at least 6.
        sketch: As for `randomized_svd`.
        max_rows: As for `randomized_svd`.
        generator: Source of all randomness; a fixed one if None.

    Returns:
        The estimate with standard errors.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: Wrong value of an argument; A not square or not finite.
    """
    operator, Q, probes, before = _prepare(A, num_matvecs, sketch, max_rows, generator, project=False)
    with torch.no_grad():
        wide = Q.to(torch.float64)
        known = (wide * operator.rmatmul(Q).to(torch.float64)).sum(-1)
        image = operator.matmul(probes).to(torch.float64)
        rest = probes.to(torch.float64) * (image - wide @ (wide.mT @ image))
        error = rest.std(-1) / rest.shape[-1] ** 0.5
    reads = operator.reads.since(before)
    value, error = (
        restored(part, operator.exponent, operator.dtype, "Diagonal entries") for part in (known + rest.mean(-1), error)
    )
    return DiagonalEstimate(value, error, reads.matvecs, reads.passes, reads.entries)


def estimate_of(value: float, error: float, exponent: int, reads: Reads) -> TraceEstimate:
    """The estimate for A from that for 2^-exponent A.

    Args:
        value: Of the trace.
        error: Its standard error.
        exponent: Of the scaling.
        reads: What was read.

    Raises:
        ValueError: If float64 does not hold it.
    """
    pair = restored(torch.tensor([value, error], dtype=torch.float64), exponent, torch.float64, "Traces")
    value, error = pair.tolist()
    return TraceEstimate(value, error, reads.matvecs, reads.passes, reads.entries)


def _prepare(
    A: Any,
    num_matvecs: int,
    sketch: str | Sketch,
    max_rows: int | None,
    generator: torch.Generator | None,
    *,
    project: bool = True,
) -> tuple[ScaledOperator, Tensor, Tensor, Reads]:
    """The operator, Q, random signs (outside Q if `project`), and the cost counts before."""
    operator = ScaledOperator(one_matrix(A))
    check_square(operator)
    check_count("num_matvecs", num_matvecs, least=6)
    size = min(num_matvecs // 3, operator.num_rows)
    distribution, allowed = as_sketch(sketch), rows_allowed(operator, size, max_rows)
    generator = generator_or_default(generator, SKETCH)
    before = operator.reads.snapshot()
    with torch.no_grad():
        image = operator.matmul(draw_sketch(operator, distribution, size, allowed, generator))
        check_finite(image)
        Q = torch.linalg.qr(image).Q
        shape = (operator.num_rows, num_matvecs - 2 * size)
        signs = torch.randint(0, 2, shape, generator=generator, device=generator.device) * 2 - 1
        probes = signs.to(operator.device, operator.dtype)
        if project:
            probes = probes - Q @ (Q.mT @ probes)
    return operator, Q, probes, before
