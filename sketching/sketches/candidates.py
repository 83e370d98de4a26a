"""Guesses of A^T A beside the sample's own, R^T R.

Each a table of features of A's columns, made from rows that were read.

The untrained lift is a guess that needs no data but the rows; a trained one is another, better where matrices are like
those that it has seen and worse where they are not. Of a family to which A may belong there are two more: the leading
space of its mean, and the members that are like the rows read. Held-out rows decide, so a guess that is wrong costs
time, and nothing else.
"""

import copy
from dataclasses import dataclass, replace
from functools import cache

import torch

from rangeformer.shapes import Float, Int, Tensor
from sketching.sketches.likeness import mixture
from sketching.sketches.random_features import Lift, LiftConfig

LIFT_SHARES = (0.02, 0.2)
"""Weights of a lift's guess beside the sample."""
FAMILY_SHARES = (0.2, 2.0, 20.0)
"""Weights of a family's space, which may be worth more than the sample."""


@dataclass(frozen=True)
class Guess:
    """One way to guess.

    Attributes:
        lift: The network.
        from_family: Its family's space instead of what it makes of the rows.
        by_likeness: Of the family, the members that are like the rows instead of the mean.
        shares: Weights to try.
    """

    lift: Lift
    from_family: bool
    shares: tuple[float, ...]
    by_likeness: bool = False

    def features(
        self, rows: Float[Tensor, "k n"], entries: Int[Tensor, " n"] | None, generator: torch.Generator
    ) -> Float[Tensor, "n f"]:
        """Psi, of Frobenius norm one up to what the lift has learned: Psi Psi^T is the guess.

        Args:
            rows: R, or combinations of its rows.
            entries: Which columns of A these are; all if None.
            generator: Source of the lift's frequencies.
        """
        if self.from_family:
            family = self.lift.family.to(rows)
            lengths = torch.linalg.vector_norm(family, dim=0)
            family = family if entries is None else family[entries]
            if self.by_likeness:
                directions = family / torch.where(lengths > 0, lengths, 1)
                return mixture(rows, directions, self.lift.members.to(rows), len(self.lift.family))
            return family / torch.linalg.matrix_norm(family).clamp_min(torch.finfo(rows.dtype).tiny)
        lifted = self.lift(rows, generator=generator)
        return lifted.features * (lifted.log_share / 2).exp()


def guesses_of(lift: Lift, num_columns: int, device: torch.device, *, few_rows: bool) -> list[Guess]:
    """The guesses that a lift can make of a matrix, the one that rests on least first.

    What a lift has been trained to is worth something where rows are fewer than the columns of the sketch. With more of
    them it has gained nothing on real matrices, and held-out rows overrate it: they judge by two thirds of the rows
    what is then done with all.

    Args:
        lift: The network.
        num_columns: n of the matrix.
        device: Of the matrix.
        few_rows: Whether fewer rows have been read than the sketch has columns.
    """
    lift = on_device(lift, device)
    guesses = [Guess(lift, False, LIFT_SHARES)]
    if lift.is_trained():
        untrained = on_device(untrained_lift(replace(lift.config, family_shape=(0, 0), num_members=0)), device)
        guesses = [Guess(untrained, False, LIFT_SHARES), *(guesses if few_rows else [])]
    if lift.knows_family(num_columns):
        guesses.append(Guess(lift, True, FAMILY_SHARES))
        if len(lift.members):
            guesses.append(Guess(lift, True, FAMILY_SHARES, by_likeness=True))
    return guesses


@cache
def untrained_lift(config: LiftConfig | None = None) -> Lift:
    """One for all who ask for that configuration: it holds no state, and making it takes longer than using it.

    Args:
        config: Sizes. Default: those of `LiftConfig`.
    """
    return Lift.untrained(config)


def on_device(lift: Lift, device: torch.device) -> Lift:
    """The lift where the matrix is; that of the caller stays where it is.

    Args:
        lift: The network.
        device: Of the matrix.
    """
    return lift if lift.correction.weight.device == device else copy.deepcopy(lift).to(device)
