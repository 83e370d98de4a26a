"""How much of a sketch to take from the rows read, from their random features, and from chance.

Decided by rows left out.

A candidate distribution is built from some of the rows and judged by the energy of the others that it captures. Three
questions are answered by the same numbers: which candidate to take beside the rows (`sketching.sketches.candidates`)
and its share, if any; whether directions beyond the sampled rows beat random ones, else those columns are Gaussian; and
how heavy the tail is. What the candidates miss of the held-out rows is spread over many rows on benign matrices; if it
sits in a few, other such rows will be among the unread ones, and every column of the sketch needs Gaussian noise enough
to find them.
"""

from dataclasses import dataclass

import torch

from rangeformer.shapes import Float, Tensor

LEAST_NOISE = 0.1  # over the number of rows: what rows of a size that none of those read has would need
_NOISE = 2.0
_MAX_NOISE = 0.12
_CHANCE = 1.2  # the random features' extra directions must capture more than this many times what random ones would
_LEAST_GAIN = 0.01  # a smaller gain over the rows alone, or over a candidate that rests on less, is no evidence


@dataclass(frozen=True)
class Decision:
    """What the rows left out say.

    Attributes:
        candidate: Which of the candidates to take.
        share: Its weight beside the sample's, 0 for the rows alone.
        noise: Standard deviation of Gaussian entries to add to every unit column; infinite for a Gaussian sketch.
        missed: Share of the held-out energy that the chosen distribution missed.
        spread: Effective share of the held-out rows over which that is spread, 1 if evenly.
    """

    candidate: int
    share: float
    noise: float
    missed: float
    spread: float = 1.0


@dataclass(frozen=True)
class Trial:
    """A distribution built without some of the rows.

    Attributes:
        held_out: `(c,)` boolean, the rows that judge it.
        seen: `(k, n)` the other rows, or combinations of them.
        features: Of every candidate, `(n, F)`, of Frobenius norm (about) one.
    """

    held_out: Tensor
    seen: Float[Tensor, "k n"]
    features: tuple[Tensor, ...]


def decide(
    rows: Float[Tensor, "c n"], trials: list[Trial], num_columns: int, shares: list[tuple[float, ...]]
) -> Decision:
    """Judge the candidates.

    Args:
        rows: R, float64, weighted.
        trials: One for every set of rows left out.
        num_columns: l.
        shares: Of every candidate, those to try beside none.

    Returns:
        The decision; a candidate is never chosen where it captures no more than chance, or than one before it.
    """
    totals = rows.square().sum(-1)
    candidates = [(0, 0.0), *((candidate, share) for candidate, some in enumerate(shares) for share in some)]
    missed = rows.new_zeros(len(candidates), len(rows))
    for trial in trials:
        unseen = rows[trial.held_out]
        captured = [_captured(trial.seen, trial.features[0], (0.0,), unseen, num_columns)]
        captured += [
            _captured(trial.seen, trial.features[k], some, unseen, num_columns) for k, some in enumerate(shares)
        ]
        missed[:, trial.held_out] = (totals[trial.held_out] - torch.cat(captured)).clamp_min(0)
    judged = torch.stack([trial.held_out for trial in trials]).any(0)
    by_candidate = missed[:, judged].sum(-1).tolist()
    spanned = min(num_columns, *(len(trial.seen) for trial in trials))
    by_chance = _CHANCE * (num_columns - spanned) / rows.shape[1]
    best = 0
    for candidate in range(len(shares)):
        own = [j for j, (other, share) in enumerate(candidates) if other == candidate and share > 0]
        leading = min(own, key=lambda j: by_candidate[j])
        needed = by_candidate[best] * max(by_chance if best == 0 else 0.0, _LEAST_GAIN)
        if by_candidate[best] - by_candidate[leading] > needed:
            best = leading
    return decision_of(missed[best, judged], totals[judged], len(rows), *candidates[best])


def _captured(
    seen: Float[Tensor, "k n"],
    features: Float[Tensor, "n f"],
    shares: tuple[float, ...],
    unseen: Float[Tensor, "h n"],
    num_columns: int,
) -> Float[Tensor, "s h"]:
    """Energy of each unseen row in the leading space of the blend, for each share of the features."""
    table = seen.mT if shares == (0.0,) else joined(seen, features)  # features of no weight cost no time
    gram, images = table.mT @ table, unseen @ table
    found = []
    for share in shares:
        weights = torch.ones_like(gram[0])
        weights[len(seen) :] = share**0.5
        directions = leading_coefficients(gram, weights, num_columns)
        found.append((images @ directions).square().sum(-1))
    return torch.stack(found)


def decision_of(
    missed: Float[Tensor, " h"], totals: Float[Tensor, " h"], num_rows: int, candidate: int = 0, share: float = 0.0
) -> Decision:
    """The decision for a candidate and its share, once it is known what is missed with it.

    Args:
        missed: Energy that each of the held-out rows lost.
        totals: Their energies.
        num_rows: c, rows read.
        candidate: Which.
        share: Its weight.
    """
    total = float(totals.sum())
    share_missed = float(missed.sum()) / total if total > 0 else 0.0
    spread = effective_number(missed) / len(missed)
    num_effective = max(1.0, spread * num_rows)  # of all rows, not only of those that were held out
    noise = max(LEAST_NOISE / num_rows, _NOISE * share_missed**1.5 / num_effective**2)
    return Decision(candidate, share, min(_MAX_NOISE, noise), share_missed, spread)


def joined(rows: Float[Tensor, "c n"], features: Float[Tensor, "n f"]) -> Float[Tensor, "n p"]:
    """Columns R^T / |R| and Psi side by side.

    Args:
        rows: R.
        features: Psi, of Frobenius norm one.
    """
    norm = torch.linalg.matrix_norm(rows).clamp_min(torch.finfo(rows.dtype).tiny)
    return torch.cat([rows.mT / norm, features.to(rows.dtype)], -1)


def leading_coefficients(gram: Float[Tensor, "p p"], weights: Float[Tensor, " p"], count: int) -> Float[Tensor, "p k"]:
    """C such that X C are the leading orthonormal eigenvectors of X diag(weights)^2 X^T, from the Gram matrix X^T X.

    Args:
        gram: X^T X.
        weights: Of the columns of X.
        count: Most vectors.
    """
    values, vectors = torch.linalg.eigh(gram * weights.unsqueeze(-1) * weights)
    values, vectors = values[-count:].flip(-1), vectors[:, -count:].flip(-1)
    kept = values > 1e-13 * values[0].clamp_min(torch.finfo(torch.float64).tiny)
    return weights.unsqueeze(-1) * vectors[:, kept] * values[kept].rsqrt()


def effective_number(energies: Float[Tensor, " c"]) -> float:
    """(sum e)^2 / sum e^2, at least 1; the number of rows if nothing was missed.

    Args:
        energies: Not negative.
    """
    peak = energies.max()
    if not bool(peak > 0):
        return float(len(energies))
    energies = energies / peak
    return max(1.0, float(energies.sum().square() / energies.square().sum()))


def make_folds(count: int, num_columns: int, device: torch.device) -> list[Tensor]:
    """Which rows are held out together: each third of the rows, only one of them where the rows are many anyway.

    Args:
        count: c.
        num_columns: l.
        device: Of the masks.
    """
    fold = torch.arange(count, device=device) % 3
    num_folds = 3 if count < 2 * num_columns else 1
    return [fold == k for k in range(min(num_folds, count))]
