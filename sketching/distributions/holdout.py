"""How much of a sketch to take from the rows read, from their lift, and from chance: decided by rows left out.

A candidate law is built from some of the rows and judged by the energy of the others that it captures. Three questions are
answered by the same numbers: the share of the lift (none, or one of `SHARES`); whether directions beyond the sampled rows
beat random ones, else those columns are Gaussian; and how heavy the tail is. What the candidates miss of the held-out rows
is spread over many rows on benign matrices; if it sits in a few, other such rows will be among the unread ones, and every
column of the sketch needs Gaussian noise enough to find them.
"""

from dataclasses import dataclass

import torch

from rangeformer.shapes import Float, Tensor

SHARES = (0.02, 0.2)
LEAST_NOISE = 0.1  # over the number of rows: what rows of a size that none of those read has would need
_NOISE = 2.0
_MAX_NOISE = 0.12
_CHANCE = 1.2  # the lift's extra directions must capture more than this many times what random ones would
_LEAST_GAIN = 0.01  # a smaller gain over the rows alone is no evidence for the lift


@dataclass(frozen=True)
class Decision:
    """What the rows left out say.

    Attributes:
        share: Weight of the lift's guess beside the sample's, 0 for the rows alone.
        noise: Standard deviation of Gaussian entries to add to every unit column; infinite for a Gaussian sketch.
        missed: Share of the held-out energy that the chosen law missed.
        spread: Effective share of the held-out rows over which that is spread, 1 if evenly.
    """

    share: float
    noise: float
    missed: float
    spread: float = 1.0


@dataclass(frozen=True)
class Trial:
    """A law built without some of the rows.

    Attributes:
        held_out: `(c,)` boolean, the rows that judge it.
        seen: `(k, n)` the other rows, or combinations of them.
        features: `(n, F)` their lift, of Frobenius norm one.
    """

    held_out: Tensor
    seen: Float[Tensor, "k n"]
    features: Float[Tensor, "n f"]


def decide(
    rows: Float[Tensor, "c n"], trials: list[Trial], num_columns: int, shares: tuple[float, ...] = SHARES
) -> Decision:
    """Judge the candidates.

    Args:
        rows: R, float64, weighted.
        trials: One for every set of rows left out.
        num_columns: l.
        shares: Of the lift, those to try beside none.

    Returns:
        The decision; the lift is never chosen where it captures no more than chance.
    """
    n = rows.shape[1]
    totals = rows.square().sum(-1)
    missed = rows.new_zeros(1 + len(shares), len(rows))
    spanned = num_columns
    for trial in trials:
        unseen, num_seen = rows[trial.held_out], len(trial.seen)
        spanned = min(spanned, num_seen)
        table = joined(trial.seen, trial.features)
        gram, images = table.mT @ table, unseen @ table
        for j, share in enumerate((0.0, *shares)):
            used = num_seen if share == 0 else table.shape[1]  # features of no weight cost no time
            weights = torch.ones_like(gram[0, :used])
            weights[num_seen:] = share**0.5
            directions = leading_coefficients(gram[:used, :used], weights, num_columns)
            captured = (images[:, :used] @ directions).square().sum(-1)
            missed[j, trial.held_out] = (totals[trial.held_out] - captured).clamp_min(0)
    judged = torch.stack([trial.held_out for trial in trials]).any(0)
    by_candidate = missed[:, judged].sum(-1)
    best = int(by_candidate.argmin())
    by_chance = _CHANCE * max(0, num_columns - spanned) / n
    if float(by_candidate[0] - by_candidate[best]) <= float(by_candidate[0]) * max(by_chance, _LEAST_GAIN):
        best = 0
    return decision_of(missed[best, judged], totals[judged], len(rows), (0.0, *shares)[best])


def decision_of(missed: Float[Tensor, " h"], totals: Float[Tensor, " h"], num_rows: int, share: float) -> Decision:
    """The decision for a share of the lift, once it is known what is missed with it.

    Args:
        missed: Energy that each of the held-out rows lost.
        totals: Their energies.
        num_rows: c, rows read.
        share: Of the lift.
    """
    total = float(totals.sum())
    share_missed = float(missed.sum()) / total if total > 0 else 0.0
    spread = effective_number(missed) / len(missed)
    num_effective = max(1.0, spread * num_rows)  # of all rows, not only of those that were held out
    noise = max(LEAST_NOISE / num_rows, _NOISE * share_missed**1.5 / num_effective**2)
    return Decision(share, min(_MAX_NOISE, noise), share_missed, spread)


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
