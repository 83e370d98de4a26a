"""From a name, options, or a finished preconditioner to P."""

from typing import Any

import torch

from rangeformer.models.features import RangeFormer
from rangeformer.operators import MatrixOperator, as_operator
from rangeformer.preconditioners.base import Preconditioner, Structure
from rangeformer.preconditioners.cholesky import CholeskyPreconditioner
from rangeformer.preconditioners.columns import ColumnPreconditioner
from rangeformer.preconditioners.global_local import RangeFormerPreconditioner
from rangeformer.preconditioners.nystrom import NystromPreconditioner, from_products
from rangeformer.preconditioners.options import BuildContext, NoPreconditioner, PreconditionerOptions
from rangeformer.randomness import PRECONDITIONER, generator_or_default
from rangeformer.validation import check_count, check_square

_NAMES: dict[str, PreconditionerOptions] = {
    "rangeformer": RangeFormerPreconditioner(),
    "rangeformer-untrained": RangeFormerPreconditioner(trained=False),
    "rpcholesky": ColumnPreconditioner("random"),
    "pivoted-cholesky": ColumnPreconditioner("greedy"),
    "nystrom": NystromPreconditioner(),
    "cholesky": CholeskyPreconditioner(),
}


def build_preconditioner(
    A: Any,
    preconditioner: str | PreconditionerOptions | Preconditioner | None = "rangeformer",
    *,
    num_columns: int | None = None,
    num_neighbors: int | None = None,
    model: RangeFormer | None = None,
    num_rhs: int = 1,
    structure: Structure | None = None,
    generator: torch.Generator | None = None,
) -> Preconditioner:
    """Build P ~ A once, to be used in many solves.

    Args:
        A: Symmetric PSD matrix, anything `as_operator` accepts.
        preconditioner: "rangeformer", "rangeformer-untrained", "rpcholesky", "pivoted-cholesky", "nystrom", "cholesky",
            None, an options object (one of this package's, or your own `PreconditionerOptions`), or a finished
            `Preconditioner` (returned as it is if its shape fits).
        num_columns: Columns read, or the rank of the classical ones; None chooses.
        num_neighbors: Neighbours of each row ("rangeformer" only); None chooses.
        model: RangeFormer that proposes the neighbours; None for the shipped weights.
        num_rhs: How many columns P will help to solve at a time; more of them justify a larger budget.
        structure: `P.structure` of a matrix nearby (the same kernel at earlier hyperparameters): its pivots and
            neighbours are reused and nothing is searched.
        generator: Source of randomness; a fixed one if None, so that the same call builds the same P.

    Returns:
        P in A's dtype and on its device.

    Raises:
        ValueError: Unknown name, impossible counts, or a P of another shape.
        TypeError: Neither a name, options, nor a preconditioner.

    Example:
        >>> import torch, rangeformer as rf
        >>> x = torch.linspace(0, 1, 300, dtype=torch.float64)[:, None]
        >>> A = torch.exp(-torch.cdist(x, x) / 0.1) + 0.01 * torch.eye(300, dtype=torch.float64)
        >>> P = rf.build_preconditioner(A, num_columns=16, num_neighbors=4)
        >>> bool((P.logdet - torch.logdet(A)).abs() < 1)
        True
    """
    check_count("num_columns", num_columns, least=0, optional=True)
    check_count("num_neighbors", num_neighbors, least=0, optional=True)
    check_count("num_rhs", num_rhs, least=1)
    operator = as_operator(A)
    check_square(operator)
    if isinstance(preconditioner, Preconditioner):
        return _fitting(preconditioner, operator)
    generator = generator_or_default(generator, PRECONDITIONER)
    options = _resolve(preconditioner).changed(num_columns=num_columns, num_neighbors=num_neighbors, model=model)
    with torch.no_grad():
        if not operator.has_entries and options.sketch_rank is not None:
            name = f"{options.name} (products only: nystrom)"
            return from_products(operator, options.sketch_rank, generator, name=name)
        return options.build(operator, BuildContext(num_rhs, structure, generator))


def check_preconditioner(preconditioner: object) -> None:
    """Raise for anything `build_preconditioner` would not know, before work is done."""
    if not isinstance(preconditioner, Preconditioner):
        _resolve(preconditioner)


def _fitting(P: Preconditioner, operator: MatrixOperator) -> Preconditioner:
    """A finished preconditioner, if it is for a matrix like this one."""
    if P.shape != operator.shape:
        raise ValueError(
            f"`preconditioner` must have A's shape {tuple(operator.shape)}. Got one built for {tuple(P.shape)}."
        )
    if (P.dtype, P.device) != (operator.dtype, operator.device):
        raise ValueError(
            f"`preconditioner` must have A's dtype {operator.dtype} and device {operator.device}. Got one in "
            f"{P.dtype} on {P.device}."
        )
    return P


def _resolve(preconditioner: object) -> PreconditionerOptions:
    if preconditioner is None:
        return NoPreconditioner()
    if isinstance(preconditioner, PreconditionerOptions):
        preconditioner.check()
        return preconditioner
    if not isinstance(preconditioner, str):
        raise TypeError(
            "`preconditioner` must be a name, an options object, a Preconditioner or None. Got "
            f"{type(preconditioner).__name__}."
        )
    if preconditioner not in _NAMES:
        known = ", ".join(repr(name) for name in _NAMES)
        raise ValueError(f"`preconditioner` must be one of {known} or None. Got {preconditioner!r}.")
    return _NAMES[preconditioner]
