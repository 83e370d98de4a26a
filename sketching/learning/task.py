"""Training the random features on structured matrices: the task "sketch" of the training program."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from rangeformer.distributions import DISTRIBUTIONS, KERNEL_DISTRIBUTIONS, RECTANGULAR_DISTRIBUTIONS, draw, draw_matrix
from rangeformer.pretrain.curriculum import draw_between, draw_index, draw_size
from rangeformer.pretrain.seeding import mixed_seed
from rangeformer.pretrain.task import Task
from rangeformer.shapes import Tensor
from sketching.learning.objective import Target, excess_of, lift_loss
from sketching.sketches.candidates import LIFT_SHARES, on_device, untrained_random_features
from sketching.sketches.random_features import RandomFeatures, RandomFeaturesConfig
from sketching.sketches.rangeformer import RangeFormerSketch

VALIDATION_DISTRIBUTIONS = ("image_patches", "word_counts", "kernel_manifold", "kernel_warped")
"""Never trained on."""
_VALIDATION_SEED = 20_240
_NUM_OVERSAMPLES = 10
_FLOOR = 1e-3  # excess below this does not matter
_SOFTNESS = 0.2  # of the minimum, in units of the log squared excess
_NOISE_RANGE = (1e-6, 1e-2)
_LARGEST_OFFSET = 3.0  # over the root mean square
_LARGEST_SHARE_OF_ZEROS = 0.9
_MOST_FOR_QUANTILE = 10_000  # entries


@dataclass(frozen=True)
class SketchBatch:
    """One shard's batch: targets, each with what is to be done to it."""

    targets: tuple[Target, ...]
    num_rows: tuple[int, ...]
    shares: tuple[float, ...]
    generator: torch.Generator


@dataclass(frozen=True)
class SketchTask(Task):
    """Settings of the task "sketch"."""

    objective: ClassVar[str] = "ratio"
    figure_titles: ClassVar[dict[str, str]] = {
        "ratio": "excess over untrained, geometric mean",
        "worst": "excess over untrained, worst distribution and number of rows",
    }

    model: RandomFeaturesConfig = field(default_factory=RandomFeaturesConfig)
    """Sizes of the random features."""
    laws: tuple[str, ...] = tuple(
        sorted((set(RECTANGULAR_DISTRIBUTIONS) | set(KERNEL_DISTRIBUTIONS)) - set(VALIDATION_DISTRIBUTIONS))
    )
    """What the matrices are drawn from, all equally likely, as tables; kernels in a random order of their points."""
    sizes: tuple[int, ...] = (96, 160, 256, 384)
    """Columns n, one drawn per batch."""
    all_sizes_at: float = 0.3
    """Progress from which all sizes are drawn."""
    batch_size: int = 4
    """Fresh matrices in each batch."""
    ranks: tuple[int, int] = (10, 40)
    """Least and largest rank, uniform."""
    rows: tuple[int, int] = (8, 64)
    """Least and largest number of rows read, log-uniform."""
    validation_laws: tuple[str, ...] = VALIDATION_DISTRIBUTIONS
    """Distributions kept for validation; never trained on."""
    validation_shape: tuple[int, int] = (400, 320)
    """Shape of the validation matrices; kernels are square, of the second."""
    validation_rank: int = 30
    """Rank in validation."""
    validation_rows: tuple[int, ...] = (24, 80)
    """Rows that may be read in validation."""
    validation_members: int = 4
    """Validation matrices of each distribution."""

    def __post_init__(self) -> None:
        """Reject what would fail only after minutes.

        Raises:
            ValueError: Unknown or shared distributions, or sizes that leave nothing to approximate.
        """
        known = set(RECTANGULAR_DISTRIBUTIONS) | set(DISTRIBUTIONS)
        for name in ("laws", "validation_laws"):
            chosen = getattr(self, name)
            unknown = sorted(set(chosen) - known)
            if unknown or not chosen:
                raise ValueError(f"`{name}` must be some of {sorted(known)}. Got {unknown or 'none'}.")
        if shared := sorted(set(self.laws) & set(self.validation_laws)):
            raise ValueError(f"`validation_laws` must not be trained on. Both have {shared}.")
        for name in ("ranks", "rows"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise ValueError(f"`{name}` must be two numbers, 1 <= least <= largest. Got {getattr(self, name)}.")
        needed = 2 * (self.ranks[1] + _NUM_OVERSAMPLES)
        if min(self.sizes, default=0) < 2 * self.rows[0] or max(self.sizes, default=0) < needed:
            raise ValueError(f"`sizes` must reach {needed}, twice the columns of the widest sketch. Got {self.sizes}.")
        if min(self.batch_size, self.validation_members, self.validation_rank) < 1:
            raise ValueError("`batch_size`, `validation_members` and `validation_rank` must be positive.")

    def build(self, generator: torch.Generator) -> RandomFeatures:
        """Untrained random features, which are the classical kernel."""
        # Initialising the layers draws from torch's global generator, which is not ours to move.
        with torch.random.fork_rng(devices=[]):
            return RandomFeatures(self.model, generator=generator)

    def draw(self, generator: torch.Generator, progress: float) -> SketchBatch:
        """Fresh matrices of one number of columns."""
        n = draw_size(self.sizes, progress, full_at=self.all_sizes_at, generator=generator)
        targets, num_rows, shares = [], [], []
        for _ in range(self.batch_size):
            distribution = self.laws[draw_index(len(self.laws), generator)]
            m = draw_between((n // 2, 2 * n), generator)
            rank = min(draw_between(self.ranks, generator), n // 4, m // 4)
            targets.append(Target.of(as_a_table(draw_target(distribution, (m, n), generator), generator), rank))
            low, high = (math.log(end) for end in self.rows)
            u = float(torch.rand((), generator=generator, device=generator.device))
            num_rows.append(min(round(math.exp(low + (high - low) * u)), targets[-1].matrix.shape[0] // 2))
            shares.append(LIFT_SHARES[draw_index(len(LIFT_SHARES), generator)])
        return SketchBatch(tuple(targets), tuple(num_rows), tuple(shares), generator)

    def loss(self, model: nn.Module, batch: SketchBatch) -> tuple[Tensor, dict[str, float]]:
        """Mean soft minimum of the log squared excess and the untrained one, over the latter.

        Held-out rows will choose between the two, so random features that are much better on some matrices are worth
        more than some that are a little better on all.
        """
        assert isinstance(model, RandomFeatures)
        untrained = on_device(untrained_random_features(self.model), batch.generator.device)
        gains = []
        for target, rows, share in zip(batch.targets, batch.num_rows, batch.shares, strict=True):
            state = batch.generator.get_state()
            own = lift_loss(model, target, rows, target.rank + _NUM_OVERSAMPLES, share, batch.generator)
            batch.generator.set_state(state)
            with torch.no_grad():
                other = lift_loss(untrained, target, rows, target.rank + _NUM_OVERSAMPLES, share, batch.generator)
            gains.append(_SOFTNESS * torch.nn.functional.softplus((other - own) / _SOFTNESS))
        loss = -torch.stack(gains).mean()
        return loss, {"gain": -loss.item()}

    def validation_set(self) -> list[tuple[str, list[Target]]]:
        """Each validation distribution, a few members, every other one as a table."""
        found = []
        for number, distribution in enumerate(self.validation_laws):
            generator = torch.Generator().manual_seed(mixed_seed(_VALIDATION_SEED, number))
            members = [
                draw_target(distribution, self.validation_shape, generator) for _ in range(self.validation_members)
            ]
            members[1::2] = [as_a_table(member, generator) for member in members[1::2]]
            found.append((distribution, [Target.of(member, self.validation_rank) for member in members]))
        return found

    @torch.no_grad()
    def validate(
        self, model: nn.Module, validation_set: list[tuple[str, list[Target]]]
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Excess of the whole sketch, decisions and noise included.

        Over that of the untrained one with the same draws.
        """
        assert isinstance(model, RandomFeatures)
        width = self.validation_rank + _NUM_OVERSAMPLES
        laws = RangeFormerSketch(model), RangeFormerSketch(untrained_random_features(self.model))
        rows: list[dict[str, Any]] = []
        for distribution, targets in validation_set:
            for num_rows in self.validation_rows:
                logs = torch.tensor(
                    [
                        [
                            math.log(
                                excess_of(target, sketch, width, num_rows, torch.Generator().manual_seed(seed)) + _FLOOR
                            )
                            for seed, target in enumerate(targets)
                        ]
                        for sketch in laws
                    ]
                ).mean(-1)
                rows.append(
                    {
                        "law": distribution,
                        "rows": num_rows,
                        "untrained": float(logs[1].exp()),
                        "ratio": float((logs[0] - logs[1]).exp()),
                    }
                )
        ratios = [math.log(row["ratio"]) for row in rows]
        return {"ratio": math.exp(sum(ratios) / len(ratios)), "worst": math.exp(max(ratios))}, rows

    def card(self) -> dict[str, Any]:
        """The distributions, and what the figures mean."""
        meaning = {
            "ratio": "geometric mean over validation distributions and numbers of rows of the excess Frobenius error "
            "over the "
            "best rank-r approximation, after one pass, divided by that of the untrained sketch",
            "worst": "the largest of these ratios",
        }
        return {"training_laws": {"all": self.laws, "documented_in": "rangeformer/distributions"}, "meaning": meaning}


def draw_target(distribution: str, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """One matrix of a distribution.

    `(m, n)`, or for a positive semidefinite distribution `(n, n)`, its points in random order.

    Args:
        distribution: A key of `rangeformer.distributions.RECTANGULAR_DISTRIBUTIONS` or `DISTRIBUTIONS`.
        shape: (m, n).
        generator: Source.
    """
    if distribution in RECTANGULAR_DISTRIBUTIONS:
        return draw_matrix(distribution, shape, generator=generator)[0]
    matrix = draw(distribution, shape[1], generator=generator, noise_range=_NOISE_RANGE).matrix[0]
    order = torch.randperm(shape[1], generator=generator, device=generator.device)
    return matrix[order][:, order]


def as_a_table(matrix: Tensor, generator: torch.Generator) -> Tensor:
    """A matrix made to resemble a data table: offset or thresholded, its columns in units of their own.

    The distributions know none of these, so that random features that have seen the distributions alone do not know
    what sizes of columns mean.

    Args:
        matrix: `(m, n)`.
        generator: Source of what is done, each thing to half of all matrices.
    """
    kind, amount, scaled, spread = torch.rand(
        4, generator=generator, dtype=matrix.dtype, device=generator.device
    ).tolist()
    if kind < 0.25:
        matrix = matrix + _LARGEST_OFFSET * amount * matrix.square().mean().sqrt()
    elif kind < 0.5:
        some = matrix.flatten()[:: -(-matrix.numel() // _MOST_FOR_QUANTILE)]
        matrix = (matrix - torch.quantile(some, _LARGEST_SHARE_OF_ZEROS * amount)).clamp_min(0)
    if scaled < 0.5:
        units = torch.randn(matrix.shape[1], generator=generator, dtype=matrix.dtype, device=generator.device)
        matrix = matrix * (spread * units).exp().to(matrix.device)
    return matrix
