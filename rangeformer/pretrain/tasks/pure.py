"""Training the pure model: coefficients that take most off the error in each loop, and read-outs of exact answers.

The loop is trained by short windows (Yang et al., "Looped transformers are better at learning learning algorithms",
ICLR 2024, arXiv:2311.12424): what it did before a window is a constant, and within one the loss is the log of the
energy error |x - A^-1 b|_A after each loop relative to that before the window. Whole paths of sixteen loops gave
gradients of any size.
"""

import math
import statistics
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import nn

from rangeformer.distributions import PAPER_DISTRIBUTIONS
from rangeformer.models.pure import PureConfig, PureRangeFormer
from rangeformer.models.pure_step import Loop
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

_FLOOR = 3e-3  # relative errors of the read-outs below this do not matter to the loss
_RESOLVED = 1e-18  # of the energy error at the start: rounding beyond
_MOST = 8.0  # log growth of the energy error beyond which a case is given up


@dataclass(frozen=True)
class PureBatch:
    """One shard's batch."""

    problems: OperationBatch
    num_loops: int
    window: int
    generator: torch.Generator


@dataclass(frozen=True)
class PureTask(Task):
    """Settings of the task "pure"."""

    objective: ClassVar[str] = "error"
    figure_titles: ClassVar[dict[str, str]] = {
        "error": "geometric mean of the three",
        "solve": "solve, median relative error",
        "eigenvalues": "eigenvalues, median relative error",
        "logdet": "log-determinant, median error per row",
    }

    model: PureConfig = field(default_factory=PureConfig)
    """Sizes of the model."""
    laws: tuple[str, ...] = PAPER_DISTRIBUTIONS
    """What the matrices are drawn from, all equally likely."""
    sizes: tuple[int, ...] = (10, 20, 30, 50)
    """Sizes n, one drawn per batch."""
    all_sizes_at: float = 0.0
    """Progress from which all sizes are drawn; 0 for no curriculum."""
    batch_size: int = 32
    """Fresh matrices in each batch."""
    loops: tuple[int, int] = (4, 16)
    """Least and largest number of loops, uniform per batch."""
    windows: tuple[int, int] = (2, 6)
    """Least and largest number of loops through which gradients flow, uniform per batch."""
    noise_range: tuple[float, float] = NOISE_RANGE
    """Ends of the log-uniform distribution of the noise on the diagonal."""
    validation_laws: tuple[str, ...] = VALIDATION_DISTRIBUTIONS
    """Distributions kept for validation; never trained on."""
    validation_sizes: tuple[int, ...] = (15, 40, 120)
    """Sizes of the validation matrices, inside and outside those trained on."""
    validation_members: int = 16
    """Validation matrices of each distribution and size."""

    def __post_init__(self) -> None:
        """Reject what would fail only after minutes.

        Raises:
            ValueError: Unknown or shared distributions, or an impossible number.
        """
        check_distributions(self.laws, self.validation_laws)
        sizes = (*self.sizes, *self.validation_sizes)
        if not self.sizes or not self.validation_sizes or min(sizes) < 2:
            raise ValueError(f"`sizes` and `validation_sizes` must hold sizes of at least 2. Got {sizes}.")
        if self.batch_size < 1 or self.validation_members < 1:
            raise ValueError("`batch_size` and `validation_members` must be positive.")
        for name in ("loops", "windows"):
            check_ends(name, getattr(self, name))

    def build(self, generator: torch.Generator) -> PureRangeFormer:
        """The untrained model: steps of least residual."""
        # Initialising the layers draws from torch's global generator, which is not ours to move.
        with torch.random.fork_rng(devices=[]):
            return PureRangeFormer(self.model, generator=generator)

    def draw(self, generator: torch.Generator, progress: float) -> PureBatch:
        """Fresh problems of one size."""
        n = draw_size(self.sizes, progress, full_at=self.all_sizes_at, generator=generator)
        num_loops, window = draw_between(self.loops, generator), draw_between(self.windows, generator)
        problems = draw_operations(self.laws, n, self.batch_size, generator=generator, noise_range=self.noise_range)
        return PureBatch(problems, num_loops, window, generator)

    def loss(self, model: nn.Module, batch: PureBatch) -> tuple[Tensor, dict[str, float]]:
        """Log energy error per loop, and logs of the relative errors of both read-outs with their expected errors."""
        assert isinstance(model, PureRangeFormer)
        problems = batch.problems
        operator = as_operator(problems.matrix)
        path = path_loss(model, problems, batch.num_loops, batch.window, batch.generator)
        seen = model.summary(operator, num_loops=model.config.num_loops, generator=batch.generator)
        spectrum_error = _spectrum_error(model.read_spectrum(seen) * seen.level.unsqueeze(-1), problems)
        logdet_error = (model.read_logdet(seen) - problems.logdet).abs() / problems.rhs.shape[-1]
        expected = model.read_log_errors(seen)
        # medians of the log errors: bounded gradients, however far off a single matrix is
        errors = (spectrum_error.detach() + _FLOOR / 10, logdet_error.detach() + _FLOOR / 10)
        calibration = sum((e.log() - log).abs().mean() for e, log in zip(errors, expected, strict=True))
        readouts = (spectrum_error + _FLOOR).log().mean() + (logdet_error + _FLOOR).log().mean()
        parts = {
            "path": path.item(),
            "eigenvalues": spectrum_error.median().item(),
            "logdet": logdet_error.median().item(),
        }
        return path + readouts + calibration, parts

    def validation_set(self) -> list[OperationBatch]:
        """Each validation distribution at each size."""
        return draw_validation(
            self.validation_laws, self.validation_sizes, self.validation_members, noise_range=self.noise_range
        )

    @torch.no_grad()
    def validate(
        self, model: nn.Module, validation_set: list[OperationBatch]
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Median relative errors at the trained number of loops, overall and by distribution and size."""
        assert isinstance(model, PureRangeFormer)
        device = next(model.parameters()).device
        rows: list[dict[str, Any]] = []
        found: dict[str, list[float]] = {"solve": [], "eigenvalues": [], "logdet": []}
        for problems in validation_set:
            operator = as_operator(problems.matrix.to(device))
            rhs, n = problems.rhs.to(device).unsqueeze(-1), problems.rhs.shape[-1]
            x = model.solve(operator, rhs).squeeze(-1).cpu()
            errors = {
                "solve": (x - problems.solution).abs().sum(-1) / problems.solution.abs().sum(-1),
                "eigenvalues": _spectrum_error(model.eigenvalues(operator)[0].cpu(), problems),
                "logdet": (model.logdet(operator)[0].cpu() - problems.logdet).abs() / n,
            }
            rows.append({"law": problems.laws[0], "n": n, **{k: e.median().item() for k, e in errors.items()}})
            for key, error in errors.items():
                found[key] += error.tolist()
        figures = {key: statistics.median(values) for key, values in found.items()}
        mean = math.exp(sum(math.log(value + 1e-9) for value in figures.values()) / len(figures))
        return {"error": mean, **figures}, rows

    def card(self) -> dict[str, Any]:
        """The distributions, and what the figures mean."""
        meaning = {
            "solve": "median over validation matrices of |x - A^-1 b|_1 / |A^-1 b|_1 after the trained number of loops",
            "eigenvalues": "median of the sum of |error| over the sum of the eigenvalues",
            "logdet": "median of |error| / n",
            "error": "geometric mean of the three",
        }
        return {"training_laws": {"all": self.laws, "documented_in": "rangeformer/distributions"}, "meaning": meaning}


def path_loss(
    model: PureRangeFormer, problems: OperationBatch, num_loops: int, window: int, generator: torch.Generator
) -> Tensor:
    """Mean log of the energy error after each loop over that before its window."""
    operator = as_operator(problems.matrix)
    scaling = model.scaling(operator, model.probes(operator, generator)).unsqueeze(-1)
    rhs, solution = scaling * problems.rhs.unsqueeze(-1), problems.solution.unsqueeze(-1) / scaling

    def product(p: Tensor) -> Tensor:
        return scaling * (problems.matrix @ (scaling * p))

    def energy(x: Tensor) -> Float[Tensor, " b"]:
        gap = solution - x
        return (gap * product(gap)).sum((-1, -2))

    state = model.start(rhs)
    first = before = energy(state.x).detach()
    total, count = rhs.new_zeros(()), 0
    for loop in range(num_loops):
        if loop % window == 0:
            state = _detached(state, scaling)
            before = energy(state.x).detach()
        state = model.step(state, product(state.p), rhs)
        after = energy(state.x)
        counts = (before > _RESOLVED * first) & (after > 0) & state.log_alpha.squeeze(-1).isfinite()
        ratio = torch.where(counts, after / before.clamp_min(torch.finfo(before.dtype).tiny), torch.ones_like(after))
        total = total + ratio.clamp_min(1e-12).log().clamp_max(_MOST).sum()
        count += int(counts.sum())
    return total / max(count, 1)


def _detached(state: Loop, scaling: Float[Tensor, "b n 1"]) -> Loop:
    """The state as a constant in A's own coordinates, so that the gate's gradient is that of the next window alone."""
    x, r, p = (scaling * state.x).detach(), (state.r / scaling).detach(), (scaling * state.p).detach()
    return replace(state, x=x / scaling, r=scaling * r, p=p / scaling)


def _spectrum_error(values: Float[Tensor, "b n"], problems: OperationBatch) -> Float[Tensor, " b"]:
    return (values - problems.eigenvalues).abs().sum(-1) / problems.eigenvalues.abs().sum(-1)
