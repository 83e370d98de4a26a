"""Training the learned Krylov model: a start that leaves smaller residuals in spaces too small to be complete.

The blocks are narrow and the loops few, or there would be nothing to gain: a complete space is exact untrained.
Gradients flow through the whole loop, products, orthonormalisation and projection alike.
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from rangeformer.distributions import DISTRIBUTIONS
from rangeformer.models.learned_krylov import LearnedKrylovConfig, LearnedKrylovModel
from rangeformer.operators import as_operator
from rangeformer.pretrain.curriculum import check_ends, draw_between, draw_size
from rangeformer.pretrain.operations import (
    NOISE_RANGE,
    VALIDATION_DISTRIBUTIONS,
    OperationBatch,
    check_distributions,
    draw_operations,
    draw_validation,
)
from rangeformer.pretrain.task import Task
from rangeformer.shapes import Float, Tensor

_FLOOR = 1e-8  # relative residuals below this do not matter


@dataclass(frozen=True)
class GalerkinBatch:
    """One shard's batch."""

    problems: OperationBatch
    num_loops: int
    generator: torch.Generator


@dataclass(frozen=True)
class GalerkinTask(Task):
    """Settings of the task "galerkin"."""

    objective: ClassVar[str] = "ratio"
    figure_titles: ClassVar[dict[str, str]] = {
        "ratio": "residual over untrained, geometric mean",
        "worst": "residual over untrained, worst distribution, size and loops",
    }

    model: LearnedKrylovConfig = field(default_factory=LearnedKrylovConfig)
    """Sizes of the model."""
    laws: tuple[str, ...] = tuple(sorted(set(DISTRIBUTIONS) - set(VALIDATION_DISTRIBUTIONS)))
    """What the matrices are drawn from, all equally likely."""
    sizes: tuple[int, ...] = (96, 128, 192, 256)
    """Sizes n, one drawn per batch."""
    all_sizes_at: float = 0.3
    """Progress from which all sizes are drawn."""
    batch_size: int = 8
    """Fresh matrices in each batch."""
    widths: tuple[int, int] = (8, 16)
    """Least and largest number of columns of a block, uniform per batch."""
    loops: tuple[int, int] = (2, 4)
    """Least and largest number of loops, uniform per batch."""
    noise_range: tuple[float, float] = NOISE_RANGE
    """Ends of the log-uniform distribution of the noise on the diagonal."""
    validation_laws: tuple[str, ...] = VALIDATION_DISTRIBUTIONS
    """Distributions kept for validation; never trained on."""
    validation_sizes: tuple[int, ...] = (160, 400)
    """Sizes of the validation matrices."""
    validation_width: int = 16
    """Columns of a block in validation."""
    validation_loops: tuple[int, ...] = (2, 4, 8)
    """Numbers of loops in validation, inside and outside those trained at."""
    validation_members: int = 4
    """Validation matrices of each distribution and size."""

    def __post_init__(self) -> None:
        """Reject what would fail only after minutes.

        Raises:
            ValueError: Unknown or shared distributions, or spaces that are complete, where there is nothing to learn.
        """
        check_distributions(self.laws, self.validation_laws)
        for name in ("widths", "loops"):
            check_ends(name, getattr(self, name))
        if self.widths[1] * self.loops[1] >= min(self.sizes):
            raise ValueError(
                f"`sizes` must be above widths x loops = {self.widths[1] * self.loops[1]}, or the space is complete. "
                f"Got {self.sizes}."
            )
        if self.validation_width * max(self.validation_loops) >= min(self.validation_sizes):
            raise ValueError("`validation_sizes` must be above validation_width x validation_loops.")
        if self.batch_size < 1 or self.validation_members < 1:
            raise ValueError("`batch_size` and `validation_members` must be positive.")

    def build(self, generator: torch.Generator) -> LearnedKrylovModel:
        """The untrained model, which is the classical algorithm."""
        # Initialising the layers draws from torch's global generator, which is not ours to move.
        with torch.random.fork_rng(devices=[]):
            return LearnedKrylovModel(self.model, generator=generator)

    def draw(self, generator: torch.Generator, progress: float) -> GalerkinBatch:
        """Fresh problems of one size."""
        n = draw_size(self.sizes, progress, full_at=self.all_sizes_at, generator=generator)
        num_loops = draw_between(self.loops, generator)
        problems = draw_operations(self.laws, n, self.batch_size, generator=generator, noise_range=self.noise_range)
        return GalerkinBatch(problems, num_loops, generator)

    def loss(self, model: nn.Module, batch: GalerkinBatch) -> tuple[Tensor, dict[str, float]]:
        """Mean log relative residual."""
        assert isinstance(model, LearnedKrylovModel)
        width = draw_between(self.widths, batch.generator)
        loss = log_residuals(model, batch.problems, batch.num_loops, width, batch.generator).mean()
        return loss, {"residual": math.exp(loss.item())}

    def validation_set(self) -> list[OperationBatch]:
        """Each validation distribution at each size."""
        return draw_validation(
            self.validation_laws, self.validation_sizes, self.validation_members, noise_range=self.noise_range
        )

    @torch.no_grad()
    def validate(
        self, model: nn.Module, validation_set: list[OperationBatch]
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Residuals over those of the untrained model with the same draws."""
        assert isinstance(model, LearnedKrylovModel)
        untrained = LearnedKrylovModel.untrained(self.model)
        rows: list[dict[str, Any]] = []
        for problems in validation_set:
            for num_loops in self.validation_loops:
                trained, before = (
                    log_residuals(
                        member, problems, num_loops, self.validation_width, torch.Generator().manual_seed(num_loops)
                    ).mean()
                    for member in (model, untrained)
                )
                rows.append(
                    {
                        "law": problems.laws[0],
                        "n": problems.rhs.shape[-1],
                        "loops": num_loops,
                        "untrained": before.exp().item(),
                        "ratio": (trained - before).exp().item(),
                    }
                )
        ratios = [math.log(row["ratio"]) for row in rows]
        return {"ratio": math.exp(sum(ratios) / len(ratios)), "worst": math.exp(max(ratios))}, rows

    def card(self) -> dict[str, Any]:
        """The distributions, and what the figures mean."""
        meaning = {
            "ratio": "geometric mean over validation distributions, sizes and loops of the relative residual over the "
            "untrained one",
            "worst": "the largest of these ratios",
        }
        return {"training_laws": {"all": self.laws, "documented_in": "rangeformer/distributions"}, "meaning": meaning}


def log_residuals(
    model: LearnedKrylovModel, problems: OperationBatch, num_loops: int, width: int, generator: torch.Generator
) -> Float[Tensor, " b"]:
    """Log relative residual of each problem in the space of `num_loops` blocks of `width` columns.

    Args:
        model: The model, on any device.
        problems: The problems, which move to it.
        num_loops: Loops.
        width: Columns of a block.
        generator: Source of the start and of the columns that are read.
    """
    device = model.directions.weight.device
    operator, rhs = as_operator(problems.matrix.to(device)), problems.rhs.to(device).unsqueeze(-1)
    space = model.solution_space(operator, rhs, num_loops=num_loops, channels=width, generator=generator)
    norms = torch.linalg.vector_norm(rhs, dim=-2)
    return (space.residual_norms(rhs) / norms + _FLOOR).log().squeeze(-1)
