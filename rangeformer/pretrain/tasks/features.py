"""The features of the preconditioner: from pivot columns to a row's strongest residual neighbours, and to A's range."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rangeformer.distributions import ALGEBRAIC_DISTRIBUTIONS, DISTRIBUTIONS, KERNEL_DISTRIBUTIONS
from rangeformer.models.features import RangeFormer, RangeFormerConfig
from rangeformer.pretrain.curriculum import draw_between, draw_index, draw_size
from rangeformer.pretrain.features.objectives import neighbor_loss, range_loss
from rangeformer.pretrain.features.problems import Problem, make_problem
from rangeformer.pretrain.features.validation import FIGURES_MEAN, ValidationCase, make_case, measure
from rangeformer.pretrain.task import Task

VALIDATION_DISTRIBUTIONS = ("kernel_discretised", "kernel_manifold", "kernel_warped", "toeplitz", "stencil")
"""Never trained on: what is kept is what helps on other distributions, at other sizes."""


@dataclass(frozen=True)
class Batch:
    """Matrices of one size, and how the model is asked about them."""

    problem: Problem
    num_neighbors: int
    num_candidates: int
    num_loops: int
    generator: torch.Generator


@dataclass(frozen=True)
class FeaturesTask(Task):
    """Settings of the task "features".

    Mixed precision is not allowed here: the coordinates that the neighbours are found by are products of nearly equal
    numbers. Under autocast to bfloat16 the gradient of the shipped weights had a cosine below 0.04 with the exact one
    on six batches, and the share missed on the validation distributions was 0.047 instead of 0.018.
    """

    objective: ClassVar[str] = "missed"
    figure_titles: ClassVar[dict[str, str]] = {
        "missed": "share of the oracle's gain missed",
        "recall": "recall of the oracle's",
        "range": "range, log missed",
    }

    model: RangeFormerConfig = field(default_factory=RangeFormerConfig)
    """The model's sizes."""
    batch_size: int = 4
    """Fresh matrices of one size in each batch, each of a distribution of its own."""
    sizes: tuple[int, ...] = (256, 384, 512, 768)
    """Sizes n, one drawn per batch."""
    all_sizes_at: float = 0.0
    """Progress from which all sizes are drawn, the smaller ones alone before; 0 for no curriculum."""
    columns: tuple[int, int] = (12, 128)
    """Least and largest number c of pivot columns, log-uniform per batch (and at most n / 4)."""
    loops: tuple[int, int] = (1, 4)
    """Least and largest number of loops, uniform per batch."""
    num_neighbors: tuple[int, int] = (4, 16)
    """Least and largest k, uniform per batch: the k strongest residual neighbours of each row are to be brought near.
    Few neighbours in a small matrix are to it what many are to a large one."""
    candidates_per_neighbor: tuple[float, float] = (1.5, 4.0)
    """Least and largest m / k, uniform per batch: the neighbours must be among the m nearest."""
    kernel_share: float = 0.8
    """Share of kernel matrices; the rest is of all other distributions."""
    range_weight: float = 0.05
    """Weight of the range loss beside the neighbour loss."""
    validation_laws: tuple[str, ...] = VALIDATION_DISTRIBUTIONS
    """Distributions kept for validation; never trained on."""
    validation_neighbors: int = 8
    """k of the validation; the candidates are 2 k."""
    validation_size: int = 800
    """n of the validation matrices."""
    validation_columns: tuple[int, ...] = (16, 32, 64, 128)
    """c of the validation matrices; each distribution meets each c, twice."""
    validation_seed: int = 1_000_003
    """Of the validation matrices."""

    def __post_init__(self) -> None:
        """Reject what would fail only after minutes."""
        unknown = set(self.validation_laws) - set(DISTRIBUTIONS)
        if unknown:
            raise ValueError(
                f"`validation_laws` has unknown distributions {sorted(unknown)}. Known: {sorted(DISTRIBUTIONS)}."
            )
        if not self.training_distributions(kernels=True) or not self.training_distributions(kernels=False):
            raise ValueError("`validation_laws` leaves no kernel distribution, or no other distribution, to train on.")
        if self.batch_size < 1 or not self.sizes or not self.validation_columns or not self.validation_laws:
            raise ValueError(
                "`batch_size` must be positive, and `sizes`, `validation_columns` and `validation_laws` not empty."
            )
        needed = 2 * self.num_neighbors[1] * self.candidates_per_neighbor[1]
        if min(self.sizes) <= needed or self.validation_size <= 2 * self.validation_neighbors:
            raise ValueError(
                f"`sizes` must exceed twice the largest number of candidates, {needed:g}, and `validation_size` its "
                f"candidates, {2 * self.validation_neighbors}. Got {self.sizes} and {self.validation_size}."
            )
        for name, least in (("columns", 1), ("loops", 0), ("num_neighbors", 1), ("candidates_per_neighbor", 1)):
            low, high = getattr(self, name)
            if not least <= low <= high:
                raise ValueError(f"`{name}` must be two numbers, {least} <= least <= largest. Got {(low, high)}.")

    def training_distributions(self, *, kernels: bool) -> tuple[str, ...]:
        """Distributions to train on: kernel distributions or the others."""
        return tuple(
            x for x in (KERNEL_DISTRIBUTIONS if kernels else ALGEBRAIC_DISTRIBUTIONS) if x not in self.validation_laws
        )

    def build(self, generator: torch.Generator) -> RangeFormer:
        """The model that is the classical algorithm."""
        # Initialising the layers draws from torch's global generator, which is not ours to move.
        with torch.random.fork_rng(devices=[]):
            return RangeFormer(self.model, generator=generator)

    def draw(self, generator: torch.Generator, progress: float) -> Batch:
        """Fresh matrices, and how many columns, neighbours, candidates and loops to use on them."""
        device = generator.device
        u = torch.rand(3 + self.batch_size, generator=generator, device=device).tolist()
        laws = []
        for kind in u[3:]:
            known = self.training_distributions(kernels=kind < self.kernel_share)
            laws.append(known[draw_index(len(known), generator)])
        n = draw_size(self.sizes, progress, full_at=self.all_sizes_at, generator=generator)
        low, high = self.columns[0], max(self.columns[0], min(self.columns[1], n // 4))
        num_columns = round(math.exp(math.log(low) + u[0] * (math.log(high) - math.log(low))))
        problem = make_problem(laws, n, num_columns, noisy_diagonal=u[1] < 0.5, generator=generator)
        num_neighbors = draw_between(self.num_neighbors, generator)
        few, many = self.candidates_per_neighbor
        num_candidates = round(num_neighbors * (few + u[2] * (many - few)))
        return Batch(problem, num_neighbors, num_candidates, draw_between(self.loops, generator), generator)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Neighbour loss + weight x range loss; features in float32, as the weights are."""
        problem = batch.problem
        features = model(
            problem.factor,
            problem.residual_diagonal,
            problem.diagonal,
            num_loops=batch.num_loops,
            generator=batch.generator,
        )
        embedding, range_features = features.neighbors.to(torch.float32), features.range.to(torch.float32)
        loss = neighbor_loss(embedding, problem.correlation, batch.num_neighbors, batch.num_candidates)
        parts = {"neighbor_loss": loss.item()}
        if self.range_weight == 0:
            return loss, parts
        rank = problem.factor.shape[-1]
        missed = range_loss(range_features, problem.kernel, rank, batch.generator)
        return loss + self.range_weight * missed, {**parts, "range_loss": missed.item()}

    def validation_set(self) -> list[ValidationCase]:
        """Each distribution with each number of columns, twice."""
        generator = torch.Generator().manual_seed(self.validation_seed)
        return [
            make_case(
                law,
                self.validation_size,
                num_columns,
                num_neighbors=self.validation_neighbors,
                noisy_diagonal=i % 2 == 0,
                generator=generator,
            )
            for law in self.validation_laws * 2
            for i, num_columns in enumerate(self.validation_columns)
        ]

    def validate(
        self, model: nn.Module, validation_set: list[ValidationCase]
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """What the proposed neighbours miss, and the range features."""
        return measure(model, validation_set, self.validation_neighbors)

    def finish(self, model: nn.Module, untrained: dict[str, float], best: dict[str, float]) -> bool:
        """Where the range got worse, the range features are those of the untrained model again."""
        if best["range"] <= untrained["range"]:
            return False
        assert isinstance(model, RangeFormer)
        _reset_range_head(model)
        return True

    def card(self) -> dict[str, Any]:
        """The distributions, and what the figures mean."""
        laws = {
            "kernel": self.training_distributions(kernels=True),
            "other": self.training_distributions(kernels=False),
        }
        return {"training_laws": {**laws, "documented_in": "rangeformer/distributions"}, "meaning": FIGURES_MEAN}


@torch.no_grad()
def _reset_range_head(model: RangeFormer) -> None:
    """Make the range features those of the untrained model: training must not end below the start here either."""
    gain, knobs = model.range_gain[-1], model.knobs[-1]
    assert isinstance(gain, nn.Linear)
    assert isinstance(knobs, nn.Linear)
    # the first knobs belong to the neighbours, the last ones are the gains of the bandwidths
    num_bandwidths = len(model.config.bandwidths)
    for parameter in (gain.weight, gain.bias, model.range_correction.weight, model.range_correction.bias):
        parameter.zero_()
    for parameter in (knobs.weight, knobs.bias):
        parameter[-num_bandwidths:] = 0
