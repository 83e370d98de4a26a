"""From a matrix to a preconditioner: the learned one and its classical rivals, by name or by options."""

import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from rangeformer.models.checkpoint import load
from rangeformer.models.features import RangeFormer
from rangeformer.operators import DenseOperator, MatrixOperator, as_operator
from rangeformer.preconditioners.base import Preconditioner, Structure, scaled_identity
from rangeformer.preconditioners.budget import choose_budget
from rangeformer.preconditioners.cholesky import cholesky_preconditioner, is_cheaper
from rangeformer.preconditioners.local import diagonal_factor, local_factor
from rangeformer.preconditioners.neighbors import nearest_earlier, strongest
from rangeformer.preconditioners.pilot import pilot
from rangeformer.preconditioners.pivoted import RULES, PivotedFactor, pivoted_cholesky
from rangeformer.randomness import PRECONDITIONER, generator_or_default
from rangeformer.shapes import Int, Tensor
from rangeformer.validation import check_count, check_square

CLASSICAL_RANK = 100
_CANDIDATES_PER_NEIGHBOR = 4


@dataclass(frozen=True)
class RangeFormerPreconditioner:
    """Global + local: pivoted columns for the range, token neighbours for what they leave.

    Attributes:
        num_columns: c, columns of A read for the global part; None chooses per matrix.
        num_neighbors: k, earlier rows each row leans on; None chooses per matrix.
        model: A `RangeFormer`, or None for the shipped weights.
    """

    num_columns: int | None = None
    num_neighbors: int | None = None
    model: RangeFormer | None = None


@dataclass(frozen=True)
class ColumnPreconditioner:
    """F F^T + noise from pivoted columns (Chen et al. 2025 random, GPyTorch's default greedy).

    Attributes:
        rule: "random" or "greedy".
        rank: Columns read.
    """

    rule: str = "random"
    rank: int = CLASSICAL_RANK


@dataclass(frozen=True)
class NystromPreconditioner:
    """Randomised Nystrom with a Gaussian sketch (Frangella, Tropp & Udell 2023, Algorithms 2.1 and 5.1).

    Attributes:
        rank: Sketch size: that many matvecs in one pass.
    """

    rank: int = CLASSICAL_RANK


@dataclass(frozen=True)
class CholeskyPreconditioner:
    """A itself, by dense Cholesky in A's precision: the budget for very many right-hand sides."""


Options = RangeFormerPreconditioner | ColumnPreconditioner | NystromPreconditioner | CholeskyPreconditioner

_NAMES: dict[str, Options] = {
    "rangeformer": RangeFormerPreconditioner(),
    "rangeformer-untrained": RangeFormerPreconditioner(),
    "rpcholesky": ColumnPreconditioner("random"),
    "pivoted-cholesky": ColumnPreconditioner("greedy"),
    "nystrom": NystromPreconditioner(),
    "cholesky": CholeskyPreconditioner(),
}


def build_preconditioner(
    A: Any,
    preconditioner: str | Options | Preconditioner | None = "rangeformer",
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
        preconditioner: "rangeformer", "rangeformer-untrained", "rpcholesky", "pivoted-cholesky", "nystrom", "cholesky", None, an options
            object, or a finished `Preconditioner` (returned as it is if its shape fits).
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
    generator = generator_or_default(generator, PRECONDITIONER)
    if isinstance(preconditioner, Preconditioner):
        if preconditioner.shape != operator.shape:
            raise ValueError(
                f"`preconditioner` must have A's shape {tuple(operator.shape)}. Got one built for "
                f"{tuple(preconditioner.shape)}."
            )
        if (preconditioner.dtype, preconditioner.device) != (operator.dtype, operator.device):
            raise ValueError(
                f"`preconditioner` must have A's dtype {operator.dtype} and device {operator.device}. Got one in "
                f"{preconditioner.dtype} on {preconditioner.device}."
            )
        return preconditioner
    with torch.no_grad():
        if preconditioner is None:
            return scaled_identity(_row_of_ones(operator))
        name, options = _resolve(preconditioner)
        if isinstance(options, NystromPreconditioner):
            return _nystrom(operator, options.rank if num_columns is None else num_columns, generator)
        if not operator.has_entries:
            # Without entries there are no columns and no neighbours to read: the sketch is the global part.
            rank = CLASSICAL_RANK if num_columns is None else num_columns
            return _nystrom(operator, rank, generator, name=f"{name} (products only: nystrom)")
        if isinstance(options, CholeskyPreconditioner):
            return _cholesky(operator)
        if isinstance(options, ColumnPreconditioner):
            rank = options.rank if num_columns is None else num_columns
            return _columns(operator, options.rule, rank, name, generator).built_from(operator)
        options = replace(
            options,
            num_columns=options.num_columns if num_columns is None else num_columns,
            num_neighbors=options.num_neighbors if num_neighbors is None else num_neighbors,
            model=options.model if model is None else model,
        )
        if name == "rangeformer-untrained":
            options = replace(options, model=RangeFormer.untrained())
        if options.num_columns is options.num_neighbors is None and is_cheaper(operator, num_rhs):
            exact = cholesky_preconditioner(operator)
            if exact is not None:
                return exact
        P = _global_and_local(operator, options, name, num_rhs, structure, generator)
        return P.built_from(operator)


def _cholesky(operator: MatrixOperator) -> Preconditioner:
    if not isinstance(operator, DenseOperator):
        raise ValueError(
            f"`preconditioner` 'cholesky' needs a dense `A`. Got {type(operator).__name__}; choose 'rangeformer' or pass a tensor."
        )
    exact = cholesky_preconditioner(operator)
    if exact is None:
        raise ValueError(
            f"`A` must be positive definite in {operator.dtype} for `preconditioner` 'cholesky'. Add a multiple of the "
            "identity, or pass A in float64."
        )
    return exact


def check_preconditioner(preconditioner: object) -> None:
    """Raise for anything `build_preconditioner` would not know, before work is done."""
    if preconditioner is not None and not isinstance(preconditioner, Preconditioner):
        _resolve(preconditioner)


def _resolve(preconditioner: object) -> tuple[str, Options]:
    if isinstance(preconditioner, Options):
        _check_options(preconditioner)
        names = {
            RangeFormerPreconditioner: "rangeformer",
            NystromPreconditioner: "nystrom",
            ColumnPreconditioner: "rpcholesky",
            CholeskyPreconditioner: "cholesky",
        }
        name = names[type(preconditioner)]
        greedy = isinstance(preconditioner, ColumnPreconditioner) and preconditioner.rule == "greedy"
        return ("pivoted-cholesky" if greedy else name), preconditioner
    if not isinstance(preconditioner, str):
        raise TypeError(
            "`preconditioner` must be a name, an options object, a Preconditioner or None. Got "
            f"{type(preconditioner).__name__}."
        )
    if preconditioner not in _NAMES:
        known = ", ".join(repr(name) for name in _NAMES)
        raise ValueError(f"`preconditioner` must be one of {known} or None. Got {preconditioner!r}.")
    return preconditioner, _NAMES[preconditioner]


def _check_options(options: Options) -> None:
    if isinstance(options, RangeFormerPreconditioner):
        check_count("num_columns", options.num_columns, least=0, optional=True)
        check_count("num_neighbors", options.num_neighbors, least=0, optional=True)
        return
    if isinstance(options, CholeskyPreconditioner):
        return
    check_count("rank", options.rank, least=0)
    if isinstance(options, ColumnPreconditioner) and options.rule not in RULES:
        raise ValueError(f"`rule` must be one of {RULES}. Got {options.rule!r}.")


def _check_structure(structure: Structure, operator: MatrixOperator) -> None:
    rows = operator.shape[:-1]
    if structure.pivots.shape[:-1] != rows[:-1] or structure.neighbors.shape[:-1] != rows:
        raise ValueError(
            f"`structure` must belong to a matrix of A's shape {tuple(operator.shape)}. Got pivots of shape "
            f"{tuple(structure.pivots.shape)} and neighbors of shape {tuple(structure.neighbors.shape)}."
        )


def _row_of_ones(operator: MatrixOperator) -> Tensor:
    return torch.ones(operator.shape[:-1], dtype=operator.dtype, device=operator.device)


def _global_and_local(
    operator: MatrixOperator,
    options: RangeFormerPreconditioner,
    name: str,
    num_rhs: int,
    structure: Structure | None,
    generator: torch.Generator | None,
) -> Preconditioner:
    if structure is not None:
        _check_structure(structure, operator)
    look = pilot(operator, generator=generator)
    noise = look.noise
    budget = choose_budget(
        operator,
        look,
        num_rhs,
        num_columns=options.num_columns,
        num_neighbors=options.num_neighbors,
    )
    pivoted = pivoted_cholesky(
        operator,
        budget.num_columns if structure is None else structure.pivots.shape[-1],
        noise=noise,
        pivots=None if structure is None else structure.pivots,
        generator=generator,
    )
    # Recomputed, because an overestimated noise makes the recursion clamp; then a floor keeps the variances positive.
    exact = operator.diagonal() - pivoted.factor.square().sum(-1)
    residual = torch.maximum(exact, 0.1 * noise)
    if structure is None:
        neighbors = _propose_neighbors(operator, pivoted, residual, budget.num_neighbors, options, generator)
        structure = Structure(pivoted.pivots, neighbors)
    local = local_factor(operator, pivoted.factor, structure.neighbors, residual)
    # Every row solved exactly contributes 1 to tr(S R S^T); a floored one contributes less.
    floored = (exact - residual).to(torch.float64) * local.inverse_scale.to(torch.float64).square()
    return Preconditioner(
        pivoted.factor,
        local,
        name=name,
        normalised_trace=operator.num_rows + floored.sum(-1),
        structure=structure,
    )


def _propose_neighbors(
    operator: MatrixOperator,
    pivoted: PivotedFactor,
    residual: Tensor,
    num_neighbors: int,
    options: RangeFormerPreconditioner,
    generator: torch.Generator | None,
) -> Int[Tensor, "*batch n k"]:
    n = operator.num_rows
    num_neighbors = min(num_neighbors, n - 1)
    if num_neighbors == 0 or pivoted.factor.shape[-1] == 0:
        return torch.empty(*operator.shape[:-1], 0, dtype=torch.long, device=operator.device)
    model = _on_device(options.model, operator.device)
    features = model(
        pivoted.factor.reshape(-1, *pivoted.factor.shape[-2:]),
        pivoted.residual_diagonal.reshape(-1, n),
        pivoted.diagonal.reshape(-1, n),
    )
    tokens = features.neighbors.reshape(*operator.shape[:-1], -1)
    # A random order makes every row's past a uniform sample of the others, whatever order A came in.
    device = generator.device if generator is not None else torch.device("cpu")
    order = torch.randperm(n, generator=generator, device=device).to(operator.device)
    order = order.expand(*operator.batch_shape, n)
    candidates = nearest_earlier(tokens, order, _CANDIDATES_PER_NEIGHBOR * num_neighbors)
    return strongest(operator, pivoted.factor, residual, candidates, num_neighbors)


@lru_cache(maxsize=4)
def _shipped(device: torch.device) -> RangeFormer:
    return load().to(device)


def _on_device(model: RangeFormer | None, device: torch.device) -> RangeFormer:
    """The shipped weights, or a caller's model, copied rather than moved if it lives elsewhere."""
    if model is None:
        return _shipped(device)
    at = next(model.parameters()).device
    return model if at == device else copy.deepcopy(model).to(device)


def _columns(
    operator: MatrixOperator,
    rule: str,
    rank: int,
    name: str,
    generator: torch.Generator | None,
) -> Preconditioner:
    """F F^T + noise: the diagonal of the residual is deliberately left out, as it slows both tested kernels."""
    noise = pilot(operator, generator=generator).noise
    pivoted = pivoted_cholesky(operator, rank, noise=noise, rule=rule, generator=generator)
    exact = operator.diagonal() - pivoted.factor.square().sum(-1)
    trace = (exact / noise).to(torch.float64).sum(-1)
    return Preconditioner(pivoted.factor, diagonal_factor(noise), name=name, normalised_trace=trace)


def _nystrom(
    operator: MatrixOperator, rank: int, generator: torch.Generator | None, name: str = "nystrom"
) -> Preconditioner:
    """U Lambda U^T + mu (I - U U^T) with mu the smallest captured eigenvalue, from one pass."""
    n = operator.num_rows
    rank = min(rank, n)
    if rank == 0:
        return scaled_identity(_row_of_ones(operator))
    device = generator.device if generator is not None else torch.device("cpu")
    omega = torch.randn((*operator.batch_shape, n, rank), generator=generator, dtype=operator.dtype, device=device).to(
        operator.device
    )
    omega = torch.linalg.qr(omega).Q
    image = operator.matmul(omega).to(torch.float64)
    wide = omega.to(torch.float64)
    shift = torch.finfo(operator.dtype).eps * torch.linalg.matrix_norm(image).unsqueeze(-1).unsqueeze(-1)
    image = image + shift * wide
    core = wide.mT @ image
    cholesky, info = torch.linalg.cholesky_ex((core + core.mT) / 2)
    factor = torch.linalg.solve_triangular(cholesky.mT, image, upper=True, left=False)
    sound = (info == 0).view(*info.shape, 1, 1) & factor.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    factor = torch.where(sound, factor, torch.zeros_like(factor))
    U, singular, _ = torch.linalg.svd(factor, full_matrices=False)
    eigenvalues = (singular.square() - shift.squeeze(-1)).clamp_min(0)
    tail = eigenvalues[..., -1:]
    smallest = torch.finfo(operator.dtype).eps * eigenvalues.amax(-1, keepdim=True)
    tail = torch.maximum(tail, smallest)
    tail = torch.where(tail > 0, tail, torch.ones_like(tail))
    factor = (U * (eigenvalues - tail).clamp_min(0).sqrt().unsqueeze(-2)).to(operator.dtype)
    variances = tail.to(operator.dtype).expand(operator.shape[:-1])
    return Preconditioner(factor, diagonal_factor(variances), name=name)
