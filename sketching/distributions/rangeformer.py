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
from sketching.distributions.holdout import Decision, Trial, decide, joined, leading_coefficients, make_folds
from sketching.distributions.oblivious import Gaussian
from sketching.distributions.reading import stratified_rows
from sketching.distributions.sampled_rows import core_rows, leading_right_vectors
from sketching.lift import Lift

_FEWEST = 6  # rows from which thirds can be held out
_MARGIN = (
    16  # combinations of the rows kept beyond l where rows are many: the lift adds little to them, and time counts
)
_FEW_WAVES = 24  # cosine features of a bandwidth there, if they are long, too:
_WIDE = 512


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
    most = num_columns + _MARGIN
    many = len(rows) > 2 * most
    if many:
        parts = [core_rows(rows[~held_out], most, generator) for held_out in folds]
    else:
        parts = [rows[~held_out] for held_out in folds]
    few = many and rows.shape[1] > _WIDE
    num_waves = len(lift.config.bandwidths) * _FEW_WAVES if few else lift.config.num_waves
    lifted = [lift(seen, num_waves=num_waves, generator=generator) for seen in parts]
    factor = float(torch.stack([proposal.log_share for proposal in lifted]).mean().exp())
    trials = [
        Trial(held_out, seen, factor**0.5 * proposal.features)
        for held_out, seen, proposal in zip(folds, parts, lifted, strict=True)
    ]
    decision = decide(rows, trials, num_columns)
    core = core_rows(rows, most, generator) if many else rows
    if decision.share == 0:
        return leading_right_vectors(core, num_columns), decision
    final = lift(core, num_waves=num_waves, generator=generator)
    table = joined(core, (decision.share * factor) ** 0.5 * final.features)
    directions = table @ leading_coefficients(table.mT @ table, torch.ones_like(table[0]), num_columns)
    noise = decision.noise * float(final.log_noise.exp())
    return torch.linalg.qr(directions).Q, Decision(decision.share, noise, decision.missed)
