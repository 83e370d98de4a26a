"""The sketch that looks first: reads a few rows, decides which and how many more, then blends what it saw.

Omega = [leading eigenvectors of R^T R / |R|^2 + share Psi Psi^T | Gaussian fill] + noise: sampled directions, their lift
(`sketching.lift`) and a Gaussian part, in proportions that held-out rows decide (`sketching.distributions.holdout`). The
law N(0, Sigma) with such a Sigma is that of Boulle & Townsend, "Learning elliptic PDEs with randomized linear algebra", 2022
(arXiv:2105.13052), whose bound improves with the alignment of Sigma and A's leading right singular space; the
eigenvectors themselves are its best deterministic draw.
"""

import math
from dataclasses import replace
from functools import cache

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.shapes import Float, Tensor
from sketching.distributions.base import LONG, Sketch, default_max_rows, filled, normal
from sketching.distributions.holdout import (
    LEAST_NOISE,
    SHARES,
    Decision,
    Trial,
    decide,
    decision_of,
    joined,
    leading_coefficients,
    make_folds,
)
from sketching.distributions.oblivious import Gaussian
from sketching.distributions.reading import stratified_rows
from sketching.distributions.rehearsal import rehearsed_noise
from sketching.distributions.row_space import (
    core_rows,
    leading_eigenvectors,
    leading_right_vectors,
)
from sketching.lift import Lift

_FEWEST = 6  # rows from which thirds can be held out
_MARGIN = 16  # combinations of the rows kept beyond l where rows are many
_UNEVEN = 0.35  # spread of what is missed, below which the tail is heavy enough to try how much noise it needs
_DEEP = 1e-5  # eigenvalues of a float32 Gram matrix below this share of the first are mixed by rounding


@cache
def untrained_lift() -> Lift:
    """One for all: it holds no state, and making it takes longer than using it."""
    return Lift.untrained()


class RangeFormerSketch(Sketch):
    """Learned, or untrained, sketch of any rank and size.

    Where A is known through products alone nothing can be read for less than a pass, and the sketch is Gaussian.

    Args:
        lift: The network that lifts sampled rows. Default: untrained, which is the classical kernel.
    """

    def __init__(self, lift: Lift | None = None):
        if lift is not None and not isinstance(lift, Lift):
            raise TypeError(f"`lift` must be a sketching.lift.Lift or None. Got {type(lift).__name__}.")
        self.lift = untrained_lift() if lift is None else lift

    def draw(
        self,
        operator: MatrixOperator,
        num_columns: int,
        *,
        max_rows: int | None = None,
        generator: torch.Generator,
    ) -> Tensor:
        """See `Sketch.draw`."""
        if not operator.has_entries or operator.num_rows < 2:
            return Gaussian().draw(operator, num_columns, generator=generator)
        limit = default_max_rows(operator, num_columns) if max_rows is None else max_rows
        with torch.no_grad():
            sample = stratified_rows(operator, min(limit, operator.num_rows), generator)
            norm = torch.linalg.vector_norm(sample.rows)
            if not bool(torch.isfinite(norm)):
                raise ValueError("`A` must be finite. Got NaN or infinite entries in the rows that were read.")
            if not bool(norm > 0):
                return Gaussian().draw(operator, num_columns, generator=generator)
            directions, decision = propose(self.lift, sample.rows, num_columns, generator)
            if decision.noise == math.inf:
                return Gaussian().draw(operator, num_columns, generator=generator)
            omega = filled(directions, num_columns, generator, dtype=operator.dtype)
            return omega.add_(_noise(omega, generator), alpha=decision.noise)


def propose(
    lift: Lift, rows: Float[Tensor, "c n"], num_columns: int, generator: torch.Generator
) -> tuple[Float[Tensor, "n k"], Decision]:
    """Directions from sampled rows, blended as held-out rows decide.

    Args:
        lift: The network.
        rows: R, weighted, not all zero, entries of at most one.
        num_columns: l, most directions.
        generator: Source of the lift's frequencies.

    Returns:
        (Nearly) orthonormal directions, best first, at most l, and the decision they rest on.
    """
    if len(rows) < _FEWEST:
        return leading_right_vectors(rows.to(torch.float64), num_columns), Decision(0.0, 0.1, 1.0)
    if len(rows) > 2 * (num_columns + _MARGIN) and rows.shape[1] > LONG:
        found = _from_many_long_rows(rows, num_columns, generator)
        if found is not None:
            return found
    decision, factor = judge(lift, _some_entries(rows, generator), num_columns, generator)
    return _blend(lift, rows.to(torch.float64), decision.share * factor, num_columns, generator), decision


def judge(
    lift: Lift, rows: Float[Tensor, "c n"], num_columns: int, generator: torch.Generator
) -> tuple[Decision, float]:
    """Try the candidates on rows left out.

    Args:
        lift: The network.
        rows: R, float64, or some entries of each.
        num_columns: l.
        generator: Source of the lift's frequencies.

    Returns:
        The decision, and the learned factor of the lift's share.
    """
    folds = make_folds(len(rows), num_columns, rows.device)
    parts = [rows[~held_out] for held_out in folds]
    many = len(rows) > 2 * (num_columns + _MARGIN)
    if many:
        parts = [core_rows(part, num_columns + _MARGIN, generator) for part in parts]
    lifted = [lift(seen, generator=generator) for seen in parts]
    factor = float(torch.stack([proposal.log_share for proposal in lifted]).mean().exp())
    trials = [
        Trial(held_out, seen, factor**0.5 * proposal.features)
        for held_out, seen, proposal in zip(folds, parts, lifted, strict=True)
    ]
    decision = decide(rows, trials, num_columns, SHARES[:1] if many else SHARES)
    if len(rows) > 2 * num_columns:
        decision = _with_noise_tried(decision, rows, folds[0], num_columns, generator)
    return decision, factor


def _blend(
    lift: Lift, rows: Float[Tensor, "c n"], share: float, num_columns: int, generator: torch.Generator
) -> Float[Tensor, "n k"]:
    """Orthonormal basis of the leading eigenvectors of the blend, best first."""
    most = num_columns + _MARGIN
    core = core_rows(rows, most, generator) if len(rows) > 2 * most else rows
    if share == 0:
        return leading_right_vectors(core, num_columns)
    table = joined(core, share**0.5 * lift(core, generator=generator).features)
    gram = table.mT @ table
    return torch.linalg.qr(table @ leading_coefficients(gram, torch.ones_like(gram[0]), num_columns)).Q


def _from_many_long_rows(
    rows: Float[Tensor, "c n"], num_columns: int, generator: torch.Generator
) -> tuple[Float[Tensor, "n l"], Decision] | None:
    """Where rows are many and long the lift has little to add to them, and time counts: two products in float32.

    Everything else follows from the Gram matrix of the rows. None where float32 is not enough.
    """
    table = rows.to(torch.float32)
    gram = table @ table.mT
    vectors, values = leading_eigenvectors(gram, num_columns + _MARGIN // 2, generator)
    if not bool(values[num_columns - 1] > _DEEP * values[0]):
        return None
    held_out = make_folds(len(rows), num_columns, rows.device)[0]
    known, known_values = leading_eigenvectors(gram[~held_out][:, ~held_out], num_columns, generator, num_steps=1)
    totals = gram.diagonal()[held_out]
    captured = ((gram[held_out][:, ~held_out] @ known).square() / known_values).sum(-1)
    decision = decision_of((totals - captured).clamp_min(0), totals, len(rows), 0.0)
    decision = _with_noise_tried(decision, rows, held_out, num_columns, generator)
    coefficients = vectors[:, :num_columns] * values[:num_columns].rsqrt()
    return table.mT @ coefficients.to(torch.float32), decision


def _with_noise_tried(
    decision: Decision, rows: Float[Tensor, "c n"], held_out: Tensor, num_columns: int, generator: torch.Generator
) -> Decision:
    """The decision with the noise of a rehearsal, where what is missed sits in few rows."""
    if decision.spread >= _UNEVEN:
        return decision
    rows = _some_entries(rows, generator)
    return replace(decision, noise=rehearsed_noise(rows, held_out, num_columns, LEAST_NOISE / len(rows), generator))


def _some_entries(rows: Float[Tensor, "c n"], generator: torch.Generator) -> Float[Tensor, "c k"]:
    """One entry of each of `LONG` strata, float64: enough to compare candidates by."""
    n = rows.shape[1]
    if n <= LONG:
        return rows.to(torch.float64)
    jitter = torch.rand(LONG, generator=generator, dtype=torch.float64, device=generator.device).to(rows.device)
    strata = torch.arange(LONG, dtype=torch.float64, device=rows.device) + jitter
    return rows[:, (strata * (n / LONG)).long().clamp_max(n - 1)].to(torch.float64)


def _noise(omega: Float[Tensor, "n l"], generator: torch.Generator) -> Tensor:
    """Of no need for digits."""
    return normal(tuple(omega.shape), generator, dtype=torch.float32, device=omega.device).to(omega.dtype)
