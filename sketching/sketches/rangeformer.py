"""The data-aware sketch: reads a few rows, decides which and how many more, then blends what it read.

Omega = [leading eigenvectors of R^T R / |R|^2 + share Psi Psi^T | Gaussian fill] + noise: sampled directions, their
random features (`sketching.sketches.random_features`) and a Gaussian part, in proportions that held-out rows decide
(`sketching.sketches.holdout`). The distribution N(0, Sigma) with such a Sigma is that of Boulle & Townsend, "Learning
elliptic PDEs with randomized linear algebra", 2022 (arXiv:2105.13052), whose bound improves with the alignment of Sigma
and A's leading right singular space; the eigenvectors themselves are its best deterministic draw.
"""

import math
from dataclasses import replace

import torch

from rangeformer.deprecation import warn_renamed
from rangeformer.operators import MatrixOperator
from rangeformer.randomness import draw_normal, draw_uniform
from rangeformer.shapes import Float, Int, Tensor
from sketching.sketches.base import LONG, Sketch, default_max_rows, filled
from sketching.sketches.candidates import Candidate, candidates_of, untrained_random_features
from sketching.sketches.holdout import (
    LEAST_NOISE,
    Decision,
    Trial,
    decide,
    decision_of,
    joined,
    leading_coefficients,
    make_folds,
)
from sketching.sketches.noise_validation import validated_noise
from sketching.sketches.oblivious import Gaussian
from sketching.sketches.random_features import RandomFeatures
from sketching.sketches.reading import stratified_rows
from sketching.sketches.row_space import core_rows, leading_eigenvectors, leading_right_vectors

_FEWEST = 6  # rows from which thirds can be held out
_MARGIN = 16  # combinations of the rows kept beyond l where rows are many
_UNEVEN = 0.35  # spread of what is missed, below which the tail is heavy enough to try how much noise it needs
_DEEP = 1e-5  # eigenvalues of a float32 Gram matrix below this share of the first are mixed by rounding


class RangeFormerSketch(Sketch):
    """Learned, or untrained, sketch of any rank and size.

    Where A is known through products alone the sketch is Gaussian, unless the caller computes a left sketch for it
    (`sketching.sketches.left_sketch`).

    Args:
        random_features: The network that computes features of sampled rows, beside the untrained one. Default: that one
            alone, which is a classical kernel.
        lift: The former name of `random_features`; deprecated.
    """

    looks = True

    def __init__(self, random_features: RandomFeatures | None = None, *, lift: RandomFeatures | None = None):
        if lift is not None:
            warn_renamed("`lift`", "`random_features`")
            random_features = lift
        if random_features is not None and not isinstance(random_features, RandomFeatures):
            raise TypeError(
                f"`random_features` must be a sketching.RandomFeatures or None. Got {type(random_features).__name__}."
            )
        self.random_features = untrained_random_features() if random_features is None else random_features

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
            directions, decision = propose(self.random_features, sample.rows, num_columns, generator)
            if decision.noise == math.inf:
                return Gaussian().draw(operator, num_columns, generator=generator)
            omega = filled(directions, num_columns, generator, dtype=operator.dtype)
            return omega.add_(_noise(omega, generator), alpha=decision.noise)


def propose(
    random_features: RandomFeatures, rows: Float[Tensor, "c n"], num_columns: int, generator: torch.Generator
) -> tuple[Float[Tensor, "n k"], Decision]:
    """Directions from sampled rows, blended as held-out rows decide.

    Args:
        random_features: The network.
        rows: R, weighted, not all zero, entries of at most one.
        num_columns: l, most directions.
        generator: Source of the random features' frequencies.

    Returns:
        (Nearly) orthonormal directions, best first, at most l, and the decision they rest on.
    """
    if len(rows) < _FEWEST:
        return leading_right_vectors(rows.to(torch.float64), num_columns), Decision(0, 0.0, 0.1, 1.0)
    n = rows.shape[1]
    if len(rows) > 2 * (num_columns + _MARGIN) and n > LONG and not random_features.knows_family(n):
        found = _from_many_long_rows(rows, num_columns, generator)
        if found is not None:
            return found
    candidates = candidates_of(random_features, n, rows.device, few_rows=len(rows) < num_columns)
    entries = _some_entries(rows, generator)
    decision = judge(candidates, rows, entries, num_columns, generator)
    return _blend(
        candidates[decision.candidate], rows.to(torch.float64), decision.share, num_columns, generator
    ), decision


def judge(
    candidates: list[Candidate],
    rows: Float[Tensor, "c n"],
    entries: Int[Tensor, " k"] | None,
    num_columns: int,
    generator: torch.Generator,
) -> Decision:
    """Try the candidates on rows left out.

    Args:
        candidates: What may be taken beside the rows.
        rows: R.
        entries: Of every row, which to compare by; all if None.
        num_columns: l.
        generator: Source of the random features' frequencies.
    """
    rows = _of_entries(rows, entries)
    folds = make_folds(len(rows), num_columns, rows.device)
    many = len(rows) > 2 * (num_columns + _MARGIN)
    trials = []
    for held_out in folds:
        seen = rows[~held_out]
        if many:
            seen = core_rows(seen, num_columns + _MARGIN, generator)
        trials.append(
            Trial(held_out, seen, tuple(candidate.features(seen, entries, generator) for candidate in candidates))
        )
    # where rows are many a large share of random features has never paid
    shares = [
        candidate.shares[:1] if many and not candidate.from_family else candidate.shares for candidate in candidates
    ]
    decision = decide(rows, trials, num_columns, shares)
    return _with_noise_tried(decision, rows, None, folds[0], num_columns, generator)


def _blend(
    candidate: Candidate, rows: Float[Tensor, "c n"], share: float, num_columns: int, generator: torch.Generator
) -> Float[Tensor, "n k"]:
    """Orthonormal basis of the leading eigenvectors of the blend, best first."""
    most = num_columns + _MARGIN
    core = core_rows(rows, most, generator) if len(rows) > 2 * most else rows
    if share == 0:
        return leading_right_vectors(core, num_columns)
    table = joined(core, share**0.5 * candidate.features(core, None, generator))
    gram = table.mT @ table
    return torch.linalg.qr(table @ leading_coefficients(gram, torch.ones_like(gram[0]), num_columns)).Q


def _from_many_long_rows(
    rows: Float[Tensor, "c n"], num_columns: int, generator: torch.Generator
) -> tuple[Float[Tensor, "n l"], Decision] | None:
    """The sketch of many long rows, by two products in float32: all else follows from the rows' Gram matrix.

    Random features have little to add to so many rows, and time counts. None where float32 is not enough.
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
    decision = decision_of((totals - captured).clamp_min(0), totals, len(rows))
    entries = _some_entries(rows, generator)
    decision = _with_noise_tried(decision, rows, entries, held_out, num_columns, generator)
    coefficients = vectors[:, :num_columns] * values[:num_columns].rsqrt()
    return table.mT @ coefficients.to(torch.float32), decision


def _with_noise_tried(
    decision: Decision,
    rows: Float[Tensor, "c n"],
    entries: Int[Tensor, " k"] | None,
    held_out: Tensor,
    num_columns: int,
    generator: torch.Generator,
) -> Decision:
    """The decision with the noise of a validation of the noise level.

    Where what is missed sits in few rows and there are enough to validate it.
    """
    if decision.spread >= _UNEVEN or len(rows) <= 2 * num_columns:
        return decision
    least, rows = LEAST_NOISE / len(rows), _of_entries(rows, entries)
    return replace(decision, noise=validated_noise(rows, held_out, num_columns, least, generator))


def _some_entries(rows: Float[Tensor, "c n"], generator: torch.Generator) -> Int[Tensor, " k"] | None:
    """One entry of each of `LONG` strata, enough to compare candidates by; None for all."""
    n = rows.shape[1]
    if n <= LONG:
        return None
    jitter = draw_uniform((LONG,), generator, dtype=torch.float64, device=rows.device)
    strata = torch.arange(LONG, dtype=torch.float64, device=rows.device) + jitter
    return (strata * (n / LONG)).long().clamp_max(n - 1)


def _of_entries(rows: Float[Tensor, "c n"], entries: Int[Tensor, " k"] | None) -> Float[Tensor, "c k"]:
    """Some entries of every row, float64."""
    return (rows if entries is None else rows[:, entries]).to(torch.float64)


def _noise(omega: Float[Tensor, "n l"], generator: torch.Generator) -> Tensor:
    """Of no need for digits."""
    return draw_normal(tuple(omega.shape), generator, dtype=torch.float32, device=omega.device).to(omega.dtype)
