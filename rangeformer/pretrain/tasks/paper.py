"""Training the paper's RangeFormer, and every step of its ablation: one operation, exact answers, an L1 loss."""

import statistics
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from rangeformer.baselines.config import SCALARS, PaperConfig
from rangeformer.baselines.paper import PaperRangeFormer
from rangeformer.distributions import PAPER_DISTRIBUTIONS
from rangeformer.pretrain.curriculum import draw_between, draw_index
from rangeformer.pretrain.operations import (
    NOISE_RANGE,
    VALIDATION_DISTRIBUTIONS,
    VALIDATION_SEED,
    OperationBatch,
    check_distributions,
    draw_operations,
)
from rangeformer.pretrain.task import Task
from rangeformer.shapes import Float, Tensor


@dataclass(frozen=True)
class PaperBatch:
    """One shard's batch.

    Attributes:
        problems: Matrices and right-hand sides.
        answer: What the model is to say: `(b, n)`, `(b,)` or `(b, n, n)`.
        num_loops: Passes through the block.
        seed: Of Omega, in the randomised form.
    """

    problems: OperationBatch
    answer: Tensor
    num_loops: int
    seed: int


@dataclass(frozen=True)
class PaperTask(Task):
    """Settings of one training of the paper's model."""

    objective: ClassVar[str] = "other"
    # under autocast the gradient's cosine with the exact one was above 0.9999 on every batch tried
    mixed_precision: ClassVar[bool] = True
    figure_titles: ClassVar[dict[str, str]] = {
        "other": "median relative error, other distributions",
        "seen": "median relative error, training distributions",
    }

    model: PaperConfig = field(default_factory=PaperConfig)
    """Sizes and choices of the model."""
    laws: tuple[str, ...] = PAPER_DISTRIBUTIONS
    """What the matrices are drawn from, all equally likely."""
    sizes: tuple[int, ...] = (10, 20, 30, 50)
    """Sizes n, one drawn per step."""
    batch_size: int = 16
    """Fresh matrices in each step, each of a distribution of its own."""
    loops: tuple[int, int] | None = None
    """Least and largest number of loops, uniform per step. Default: always the model's."""
    relative_loss: bool = True
    """Divide each problem's error by the size of its answer, so that ill-conditioned problems do not drown the others;
    without it the loss is the paper's plain L1. Scalars, which may be zero, are never divided."""
    noise_range: tuple[float, float] = NOISE_RANGE
    """Ends of the log-uniform distribution of the noise on the diagonal."""
    validation_laws: tuple[str, ...] = VALIDATION_DISTRIBUTIONS
    """Distributions kept for validation; never trained on."""
    validation_sizes: tuple[int, ...] = (15, 40)
    """Sizes of the validation matrices, which training need not have seen."""
    validation_members: int = 24
    """Validation matrices of each distribution and size."""
    rung: str = ""
    """What this model is called on the ladder of ablations, for its card."""

    def __post_init__(self) -> None:
        """Reject what would fail only after minutes.

        Raises:
            ValueError: Unknown or shared distributions, sizes that the model cannot read, or an impossible number.
        """
        check_distributions(self.laws, self.validation_laws)
        sizes = (*self.sizes, *self.validation_sizes)
        if not self.sizes or not self.validation_sizes or min(sizes) < 2:
            raise ValueError(f"`sizes` and `validation_sizes` must hold sizes of at least 2. Got {sizes}.")
        if self.model.tied_to_n_max and max(sizes) > self.model.n_max:
            raise ValueError(f"`sizes` must not exceed the model's n_max = {self.model.n_max}. Got {max(sizes)}.")
        if self.batch_size < 1 or self.validation_members < 1:
            raise ValueError("`batch_size` and `validation_members` must be positive.")
        if self.loops is not None and not (self.model.looped and 1 <= self.loops[0] <= self.loops[1]):
            raise ValueError(f"`loops` must be 1 <= least <= largest, of a looped model. Got {self.loops}.")

    def build(self, generator: torch.Generator) -> PaperRangeFormer:
        """The untrained model."""
        return PaperRangeFormer(self.model, generator=generator)

    def draw(self, generator: torch.Generator, progress: float) -> PaperBatch:
        """Fresh problems of one size; no curriculum, as n is small."""
        n = self.sizes[draw_index(len(self.sizes), generator)]
        num_loops = self.model.num_loops if self.loops is None else draw_between(self.loops, generator)
        seed = draw_index(2**31, generator)
        problems = draw_operations(self.laws, n, self.batch_size, generator=generator, noise_range=self.noise_range)
        return PaperBatch(problems, exact_answer(problems, self.model.operation), num_loops, seed)

    def loss(self, model: nn.Module, batch: PaperBatch) -> tuple[Tensor, dict[str, float]]:
        """L1 distance of the answers (nuclear norm for the inverse), per number of the answer."""
        # the model computes in float32: cast once, and let no float64 into its graph
        matrix, rhs = batch.problems.matrix.float(), batch.problems.rhs.float()
        proposed = model(
            matrix,
            rhs if self.model.operation == "solve" else None,
            num_loops=batch.num_loops,
            generator=torch.Generator().manual_seed(batch.seed),
        )
        answer = batch.answer.to(proposed.dtype)
        error, size = _norm(proposed - answer), _norm(answer)
        if self.relative_loss and self.model.operation not in SCALARS:
            error = error / size.clamp_min(torch.finfo(size.dtype).tiny)
        loss = error.mean()
        return loss, {"error": loss.item()}

    def validation_set(self) -> list[OperationBatch]:
        """Each validation distribution at each size, then the training distributions together at each size."""
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        groups = [*([law] for law in self.validation_laws), self.laws]
        # as many of the training distributions together as of the other distributions together
        counts = [*[self.validation_members] * len(self.validation_laws), 5 * self.validation_members]
        return [
            draw_operations(laws, n, count, generator=generator, noise_range=self.noise_range)
            for n in self.validation_sizes
            for laws, count in zip(groups, counts, strict=True)
        ]

    @torch.no_grad()
    def validate(
        self, model: nn.Module, validation_set: list[OperationBatch]
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Median relative errors in and out of the training distributions, and by distribution and size."""
        device = next(model.parameters()).device
        errors: dict[tuple[str, str, int], list[float]] = {}
        for problems in validation_set:
            rhs = problems.rhs.to(device) if self.model.operation == "solve" else None
            proposed = model(problems.matrix.to(device), rhs).to(problems.matrix)
            found = relative_error(proposed, exact_answer(problems, self.model.operation))
            for law, value in zip(problems.laws, found.tolist(), strict=True):
                kind = "other" if law in self.validation_laws else "seen"
                errors.setdefault((kind, law, problems.rhs.shape[-1]), []).append(value)
        figures = {
            kind: statistics.median(x for (group, _, _), values in errors.items() if group == kind for x in values)
            for kind in ("other", "seen")
        }
        table = [
            {"laws": kind, "law": law, "n": n, "num": len(values), "median": statistics.median(values)}
            for (kind, law, n), values in sorted(errors.items())
        ]
        return figures, table

    def card(self) -> dict[str, Any]:
        """What the figures mean."""
        return {
            **({"rung": self.rung} if self.rung else {}),
            "training_laws": list(self.laws),
            "meaning": "median over matrices of |answer - exact|_1 / |exact|_1; other: distributions and sizes that "
            "are not "
            "trained on, by which the best model is kept; seen: the training distributions at the same sizes",
        }


def exact_answer(problems: OperationBatch, operation: str) -> Tensor:
    """The exact answer of an operation, float64: `(b, n)`, `(b,)` or `(b, n, n)`."""
    if operation == "inverse":
        return torch.cholesky_inverse(torch.linalg.cholesky(problems.matrix))
    if operation == "trace":
        return problems.matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
    if operation == "largest_eigenvalue":
        return problems.eigenvalues[:, -1]
    return {"solve": problems.solution, "eigenvalues": problems.eigenvalues, "logdet": problems.logdet}[operation]


def relative_error(proposed: Tensor, exact: Tensor) -> Float[Tensor, " b"]:
    """|proposed - exact| / |exact| of each problem, entrywise 1-norms, as the paper reports."""
    dims = tuple(range(1, exact.dim()))
    error, size = (x.abs().sum(dims) if dims else x.abs() for x in (proposed - exact, exact))
    return error / size


def _norm(x: Tensor) -> Float[Tensor, " b"]:
    """Mean absolute number of a vector, absolute value of a scalar, nuclear norm / n of a matrix."""
    if x.dim() == 3:
        return torch.linalg.matrix_norm(x, ord="nuc") / x.shape[-1]
    return x.abs() if x.dim() == 1 else x.abs().mean(-1)
