"""Fine-tuning of a sketch to a family of matrices.

Frames, patches, kernels of one data set, tables that come every night.

Three things can be learned from a few members. What their rows have in common: the leading eigenvectors of
mean_i A_i^T A_i / |A_i|^2, the best space to sketch with that does not depend on the member. What each of them is like,
so that those like the rows read can be taken instead of the mean (`sketching.sketches.likeness`). Both need the columns
of all members to mean the same. And how their entries move together: gradient steps on the random features, of whatever
sizes the members are. Each is kept only if it lowers the error on members that were put aside, and where A turns out to
be no member, the rows that the sketch reads say so.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from rangeformer.randomness import SKETCH, generator_or_default
from rangeformer.shapes import Float, Tensor
from rangeformer.validation import check_count
from sketching.arguments import check_rank, one_matrix, rows_allowed
from sketching.learning.objective import Target, excess_of, lift_loss
from sketching.sketches.candidates import LIFT_SHARES
from sketching.sketches.random_features import RandomFeatures
from sketching.sketches.rangeformer import RangeFormerSketch
from sketching.sketches.row_space import leading_eigenvectors
from sketching.sketches.shipped import trained_random_features

Report = Callable[[dict[str, Any]], None]
_FAMILY_FACTOR = 2  # directions of a family over columns of a sketch: which of them matter is A's own affair
_MOST_MEMBERS = 32  # remembered one by one
_NUM_DRAWS = 2  # of the sketch, for each member that validates
_FLOOR = 1e-4  # excess below this does not matter
_VALIDATE_EVERY = 20
_PATIENCE = 3  # validations without a gain
_LEAST_GAIN = 0.005
_MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class _Member:
    """A matrix of the family, and how many rows a sketch of it may read."""

    target: Target
    num_rows: int


def finetune(
    model: RandomFeatures | None,
    matrices: Sequence[Any],
    rank: int,
    *,
    num_oversamples: int = 10,
    max_rows: int | None = None,
    num_steps: int = 200,
    learning_rate: float = 1e-3,
    validation_share: float = 0.25,
    report: Report | None = None,
    generator: torch.Generator | None = None,
) -> RandomFeatures:
    """Adapt a sketch to a family of matrices, from a few of its members.

    Args:
        model: Random features to start from, which are left as they are. Default: the shipped ones.
        matrices: At least two members `(m, n)`, as `randomized_svd` takes them and small enough to be held densely;
            with the same number of columns, their common space is learned too.
        rank: That will be asked for.
        num_oversamples: That will be asked for.
        max_rows: Rows that a sketch will be allowed to read. Default: as in `randomized_svd`.
        num_steps: Most gradient steps on the random features; they end early once the error on the members put aside no
            longer falls. 0 for the common space alone. Of no use, and not taken, where as many rows may be read as the
            sketch has columns.
        learning_rate: Of the gradient steps.
        validation_share: Share of the members put aside to decide by, at least one.
        report: Called with {"step", "ratio"}, and "loss" where there is one: the excess error on the members put aside
            over that of `model`.
        generator: Source of all randomness; a fixed one if None.

    Returns:
        The adapted random features, for `RangeFormerSketch(random_features)`; `rangeformer.models.checkpoint.save` and
        `load` know it. On the members put aside never worse than `model`, which comes back as a copy if nothing helped.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: If there are fewer than two matrices, one is a batch, zero or not finite, or a number is impossible.

    References:
        The common space is that of Frieze, Kannan & Vempala 2004 with members in the place of rows. The gradient steps
        follow Indyk, Vakilian & Yuan, "Learning-based low-rank approximations", NeurIPS 2019, who learn the sketch
        itself.

    Example:
        >>> import torch, sketching
        >>> generator = torch.Generator().manual_seed(0)
        >>> common = torch.randn(6, 50, generator=generator)
        >>> family = [torch.randn(40, 6, generator=generator) @ common for _ in range(4)]
        >>> random_features = sketching.finetune(None, family, 4, num_steps=0)
        >>> low_rank = sketching.randomized_svd(family[0], 4, sketch=sketching.RangeFormerSketch(random_features))
    """
    _check(model, matrices, num_steps, learning_rate, validation_share)
    check_count("num_oversamples", num_oversamples, least=0)
    generator = generator_or_default(generator, SKETCH)
    members = [_member(matrix, rank, max_rows, k) for k, matrix in enumerate(matrices)]
    order = torch.randperm(len(members), generator=generator, device=generator.device).tolist()
    num_aside = min(len(members) - 1, max(1, round(validation_share * len(members))))
    aside, others = ([members[k] for k in part] for part in (order[:num_aside], order[num_aside:]))
    start = copy.deepcopy(trained_random_features() if model is None else model).requires_grad_(False).eval()
    judge = _Judge(start, aside, rank + num_oversamples, report or (lambda message: None))
    if len({member.target.matrix.shape[1] for member in members}) == 1:
        for random_features in _with_family(start, others, _FAMILY_FACTOR * (rank + num_oversamples), generator):
            judge.consider(random_features, 0)
    if num_steps and any(member.num_rows < judge.num_columns for member in members):
        _descend(judge, others, num_steps, learning_rate, generator)
    return judge.best


class _Judge:
    """Keeps the best random features by the members put aside; the same draws for all.

    Args:
        start: What to beat.
        aside: The members.
        num_columns: Of the sketch.
        report: See `finetune`.

    Attributes:
        best: The best so far.
        ratio: Its excess over that of the start, geometric mean.
    """

    def __init__(self, start: RandomFeatures, aside: list[_Member], num_columns: int, report: Report):
        self.aside, self.num_columns, self.report = aside, num_columns, report
        self.at_start = self._log_excess(start)
        self.best, self.ratio = start, 1.0
        report({"step": 0, "ratio": 1.0})

    def consider(self, random_features: RandomFeatures, step: int, **said: float) -> bool:
        """Measure a candidate, and keep it if it is the best; whether it was clearly better."""
        ratio = math.exp(self._log_excess(random_features) - self.at_start)
        self.report({"step": step, "ratio": ratio, **said})
        if not ratio < self.ratio:
            return False
        clearly = ratio < (1 - _LEAST_GAIN) * self.ratio
        self.best, self.ratio = copy.deepcopy(random_features).requires_grad_(False).eval(), ratio
        return clearly

    def _log_excess(self, random_features: RandomFeatures) -> float:
        distribution, logs = RangeFormerSketch(random_features), []
        for member in self.aside:
            width = min(self.num_columns, *member.target.matrix.shape)
            for seed in range(_NUM_DRAWS):
                source = torch.Generator().manual_seed(seed)
                logs.append(math.log(excess_of(member.target, distribution, width, member.num_rows, source) + _FLOOR))
        return sum(logs) / len(logs)


def _with_family(
    random_features: RandomFeatures, members: list[_Member], most: int, generator: torch.Generator
) -> list[RandomFeatures]:
    """Random features with the leading space of the members' mean; and the same, remembering members one by one."""
    n = members[0].target.matrix.shape[1]
    gram = torch.zeros(n, n, dtype=torch.float64, device=members[0].target.matrix.device)
    for member in members:
        A = member.target.matrix
        gram.addmm_(A.mT, A, alpha=1 / max(member.target.total, torch.finfo(torch.float64).tiny))
    vectors, energies = leading_eigenvectors(gram, min(most, n), generator)
    family = vectors * energies.clamp_min(0).sqrt()
    parts = [_part(member.target, vectors) for member in members[:_MOST_MEMBERS]]
    remembered = torch.stack(parts)
    found = [known_family(random_features, family, remembered[:0])]
    if len(parts) > 1:  # one alone is the mean
        found.append(known_family(random_features, family, remembered))
    return found


def _part(target: Target, directions: Float[Tensor, "n k"]) -> Float[Tensor, "k k"]:
    """F such that F F^T is A^T A / |A|_F^2 in some directions, columns in falling order."""
    image = target.matrix @ directions
    energies, turn = torch.linalg.eigh(image.mT @ image / target.total)
    return (turn * energies.clamp_min(0).sqrt()).flip(-1)


def known_family(
    random_features: RandomFeatures, family: Float[Tensor, "n k"], members: Float[Tensor, "b k k"]
) -> RandomFeatures:
    """A copy of random features that knows another family.

    Args:
        random_features: The network.
        family: Directions times the roots of their energies.
        members: F_i of those that are remembered, see `sketching.sketches.likeness`; may be none.
    """
    n, k = family.shape
    found = RandomFeatures.untrained(replace(random_features.config, family_shape=(n, k), num_members=len(members)))
    weights = {name: weight for name, weight in random_features.state_dict().items() if name != "members"}
    weights |= {"family": family.to(found.family)} | ({"members": members.to(found.members)} if len(members) else {})
    found.load_state_dict(weights)
    return found


def _descend(
    judge: _Judge, members: list[_Member], num_steps: int, learning_rate: float, generator: torch.Generator
) -> None:
    """Gradient steps on the random features' network from the best there is, until the judge sees no more gain."""
    random_features = copy.deepcopy(judge.best).requires_grad_(True)
    parameters = list(random_features.parameters())
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    losses, waited = [], 0
    for step in range(1, num_steps + 1):
        member = members[_index(len(members), generator)]
        width = min(judge.num_columns, *member.target.matrix.shape)
        share = LIFT_SHARES[_index(len(LIFT_SHARES), generator)]
        optimizer.zero_grad()
        loss = lift_loss(random_features, member.target, member.num_rows, width, share, generator)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, _MAX_GRADIENT_NORM)
        if bool(torch.isfinite(norm)):
            optimizer.step()
            losses.append(loss.item())
        if step % _VALIDATE_EVERY == 0 or step == num_steps:
            gained = judge.consider(random_features, step, loss=sum(losses) / max(1, len(losses)))
            losses, waited = [], 0 if gained else waited + 1
            if waited == _PATIENCE:
                return


def _index(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator, device=generator.device))


def _member(matrix: Any, rank: int, max_rows: int | None, k: int) -> _Member:
    """A matrix measured."""
    operator = one_matrix(matrix)
    check_rank(operator, rank)
    eye = torch.eye(operator.num_columns, dtype=operator.dtype, device=operator.device)
    with torch.no_grad():
        dense = operator.matmul(eye).to(torch.float64)
    if not bool(torch.isfinite(dense).all()):
        raise ValueError(f"`matrices` must be finite. Got NaN or infinite entries in number {k}.")
    peak = dense.abs().max()
    if not bool(peak > 0):
        raise ValueError(f"`matrices` must not be zero. Got zeros alone in number {k}; leave it out.")
    return _Member(Target.of(dense / peak, rank), rows_allowed(operator, rank, max_rows))


def _check(model: Any, matrices: Any, num_steps: int, learning_rate: float, validation_share: float) -> None:
    if model is not None and not isinstance(model, RandomFeatures):
        raise TypeError(f"`model` must be a sketching.RandomFeatures or None. Got {type(model).__name__}.")
    if not isinstance(matrices, Sequence):
        raise TypeError(
            f"`matrices` must be a list of matrices. Got {type(matrices).__name__}; list a batch's members."
        )
    if len(matrices) < 2:
        raise ValueError(
            f"`matrices` must be at least two, one to learn from and one to judge by. Got {len(matrices)}."
        )
    check_count("num_steps", num_steps, least=0)
    for name, value, most in (("learning_rate", learning_rate, math.inf), ("validation_share", validation_share, 1.0)):
        if not 0 < value < most:
            raise ValueError(f"`{name}` must be in (0, {most}). Got {value}.")
