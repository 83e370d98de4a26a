"""Candidate models of A^T A beside the sample's own, R^T R: tables of features of A's columns, made from rows read.

Untrained random features are a candidate that needs no data but the rows; trained ones are another, better where
matrices are like those that it has seen and worse where they are not. Of a family to which A may belong there are two
more: the leading space of its mean, and the members that are like the rows read. Held-out rows decide, so a candidate
that is wrong costs time, and nothing else.
"""

import copy
from dataclasses import dataclass, replace
from functools import cache

import torch

from rangeformer.shapes import Float, Int, Tensor
from sketching.sketches.likeness import mixture
from sketching.sketches.random_features import RandomFeatures, RandomFeaturesConfig

LIFT_SHARES = (0.02, 0.2)
"""Weights of random features' candidate beside the sample."""
FAMILY_SHARES = (0.2, 2.0, 20.0)
"""Weights of a family's space, which may be worth more than the sample."""


@dataclass(frozen=True)
class Candidate:
    """One candidate model of A^T A.

    Attributes:
        random_features: The network.
        from_family: Its family's space instead of what it makes of the rows.
        by_likeness: Of the family, the members that are like the rows instead of the mean.
        shares: Weights to try.
    """

    random_features: RandomFeatures
    from_family: bool
    shares: tuple[float, ...]
    by_likeness: bool = False

    def features(
        self, rows: Float[Tensor, "k n"], entries: Int[Tensor, " n"] | None, generator: torch.Generator
    ) -> Float[Tensor, "n f"]:
        """Psi, of Frobenius norm one up to what the random features have learned: Psi Psi^T is the candidate.

        Args:
            rows: R, or combinations of its rows.
            entries: Which columns of A these are; all if None.
            generator: Source of the random features' frequencies.
        """
        if self.from_family:
            family = self.random_features.family.to(rows)
            lengths = torch.linalg.vector_norm(family, dim=0)
            family = family if entries is None else family[entries]
            if self.by_likeness:
                directions = family / torch.where(lengths > 0, lengths, 1)
                return mixture(
                    rows, directions, self.random_features.members.to(rows), len(self.random_features.family)
                )
            return family / torch.linalg.matrix_norm(family).clamp_min(torch.finfo(rows.dtype).tiny)
        lifted = self.random_features(rows, generator=generator)
        return lifted.features * (lifted.log_share / 2).exp()


def candidates_of(
    random_features: RandomFeatures, num_columns: int, device: torch.device, *, few_rows: bool
) -> list[Candidate]:
    """The candidates that random features can make of a matrix, the one that rests on least first.

    Trained random features are worth something where rows are fewer than the columns of the sketch.
    With more of them they have gained nothing on real matrices, and held-out rows overrate them: two thirds of the rows
    judge what is then done with all.

    Args:
        random_features: The network.
        num_columns: n of the matrix.
        device: Of the matrix.
        few_rows: Whether fewer rows have been read than the sketch has columns.
    """
    random_features = on_device(random_features, device)
    candidates = [Candidate(random_features, False, LIFT_SHARES)]
    if random_features.is_trained():
        untrained = on_device(
            untrained_random_features(replace(random_features.config, family_shape=(0, 0), num_members=0)), device
        )
        candidates = [Candidate(untrained, False, LIFT_SHARES), *(candidates if few_rows else [])]
    if random_features.knows_family(num_columns):
        candidates.append(Candidate(random_features, True, FAMILY_SHARES))
        if len(random_features.members):
            candidates.append(Candidate(random_features, True, FAMILY_SHARES, by_likeness=True))
    return candidates


@cache
def untrained_random_features(config: RandomFeaturesConfig | None = None) -> RandomFeatures:
    """One for all who ask for that configuration: it holds no state, and making it takes longer than using it.

    Args:
        config: Sizes. Default: those of `RandomFeaturesConfig`.
    """
    return RandomFeatures.untrained(config)


def on_device(random_features: RandomFeatures, device: torch.device) -> RandomFeatures:
    """Random features where the matrix is; that of the caller stays where it is.

    Args:
        random_features: The network.
        device: Of the matrix.
    """
    return (
        random_features
        if random_features.correction.weight.device == device
        else copy.deepcopy(random_features).to(device)
    )
