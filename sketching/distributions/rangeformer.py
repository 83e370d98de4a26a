"""The sketch that looks first: reads a few rows, decides which and how many more, then blends what it saw.

Omega = [leading eigenvectors of R^T R / |R|^2 + share Psi Psi^T | Gaussian fill] + noise: sampled directions, their lift
(`sketching.lift`) and a Gaussian part, in proportions that held-out rows decide (`sketching.distributions.holdout`). The
law N(0, Sigma) with such a Sigma is that of Boulle & Townsend, "Learning elliptic PDEs with randomized linear algebra", 2022
(arXiv:2105.13052), whose bound improves with the alignment of Sigma and A's leading right singular space; the
eigenvectors themselves are its best deterministic draw.
"""

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.shapes import Float, Tensor
from sketching.distributions.base import Sketch, default_max_rows, filled, normal
from sketching.distributions.holdout import Decision, decide, joined, leading_coefficients, make_folds
from sketching.distributions.oblivious import Gaussian
from sketching.distributions.reading import stratified_rows
from sketching.distributions.sampled_rows import leading_right_vectors
from sketching.lift import Lift

_FEWEST = 6  # rows from which thirds can be held out


class RangeFormerSketch(Sketch):
    """Learned, or untrained, sketch of any rank and size.

    Where A is known through products alone nothing can be read for less than a pass, and the sketch is Gaussian.

    Args:
        lift: The network that lifts sampled rows. Default: untrained, which is the classical kernel.
    """

    def __init__(self, lift: Lift | None = None):
        if lift is not None and not isinstance(lift, Lift):
            raise TypeError(f"`lift` must be a sketching.lift.Lift or None. Got {type(lift).__name__}.")
        self.lift = Lift.untrained() if lift is None else lift

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
        limit = default_max_rows(operator.num_rows, num_columns) if max_rows is None else max_rows
        with torch.no_grad():
            sample = stratified_rows(operator, min(limit, operator.num_rows), generator)
            if not bool(torch.isfinite(sample.rows).all()):
                raise ValueError("`A` must be finite. Got NaN or infinite entries in the rows that were read.")
            if not bool(sample.rows.any()):
                return Gaussian().draw(operator, num_columns, generator=generator)
            directions, decision = propose(self.lift, sample.rows, num_columns, generator)
            omega = filled(directions, num_columns, generator, dtype=operator.dtype)
            noise = normal(tuple(omega.shape), generator, dtype=omega.dtype, device=omega.device)
            return omega + decision.noise * noise


def propose(
    lift: Lift, rows: Float[Tensor, "c n"], num_columns: int, generator: torch.Generator
) -> tuple[Float[Tensor, "n k"], Decision]:
    """Directions from sampled rows, blended as held-out rows decide.

    Args:
        lift: The network.
        rows: R, float64, weighted, not all zero.
        num_columns: l, most directions.
        generator: Source of the lift's frequencies.

    Returns:
        Orthonormal directions, best first, at most l, and the decision they rest on.
    """
    if len(rows) < _FEWEST:
        return leading_right_vectors(rows, num_columns), Decision(0.0, 0.1, 1.0)
    folds = make_folds(len(rows), num_columns, rows.device)
    lifted = [lift(rows[~held_out], generator=generator) for held_out in folds]
    factor = float(torch.stack([proposal.log_share for proposal in lifted]).mean().exp())
    decision = decide(rows, [factor**0.5 * proposal.features for proposal in lifted], folds, num_columns)
    if decision.share == 0:
        return leading_right_vectors(rows, num_columns), decision
    final = lift(rows, generator=generator)
    table = joined(rows, (decision.share * factor) ** 0.5 * final.features)
    directions = table @ leading_coefficients(table.mT @ table, torch.ones_like(table[0]), num_columns)
    noise = decision.noise * float(final.log_noise.exp())
    return torch.linalg.qr(directions).Q, Decision(decision.share, noise, decision.missed)
