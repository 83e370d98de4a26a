"""The training loop: fresh structured matrices in every step, validation on other laws, the best is kept."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from rangeformer.model import RangeFormer
from rangeformer.pretrain.config import PretrainConfig
from rangeformer.pretrain.objectives import neighbor_loss, range_loss
from rangeformer.pretrain.problems import Problem, make_problem
from rangeformer.pretrain.validation import Validation, validate, validation_problems

Report = Callable[[dict[str, Any]], None]
_WARM_UP = 0.03


@dataclass
class TrainingResult:
    """What came out.

    Attributes:
        model: The best model; the untrained one if nothing beat it.
        improved: Whether training beat the untrained model on the validation set.
        untrained: Validation of the model before training.
        best: Validation of `model`.
        untrained_table: One row per validation matrix, before training.
        best_table: The same for `model`.
        history: Losses and validations by step.
        num_steps: Steps taken.
        num_skipped: Steps left out because a gradient was not finite.
        minutes: Wall time of training and validation.
    """

    model: RangeFormer
    improved: bool
    untrained: Validation
    best: Validation
    untrained_table: list[dict[str, Any]]
    best_table: list[dict[str, Any]]
    history: list[dict[str, Any]] = field(default_factory=list)
    num_steps: int = 0
    num_skipped: int = 0
    minutes: float = 0.0


def pretrain(config: PretrainConfig, report: Report | None = None) -> TrainingResult:
    """Train from the classical start, keep the best, never end below the start.

    Args:
        config: The run.
        report: Called with a dict after every step ("step", "progress", "loss", ...) and every validation ("missed",
            "recall", "range").
    """
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    report = report or (lambda message: None)
    start = time.monotonic()
    generator = torch.Generator().manual_seed(config.seed)
    model = RangeFormer(config.model, generator=generator)
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=1e-3)

    problems = validation_problems(config)
    untrained, table = validate(average, problems, config)
    kept = copy.deepcopy(average)
    result = TrainingResult(kept, False, untrained, untrained, table, table)
    result.history.append({"step": 0, **asdict(untrained)})
    report(result.history[-1])

    step, progress, running = 0, 0.0, math.nan
    while progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _schedule(progress)
        step_choices = _draw_step(config, generator)
        loss, value = _loss(model, *step_choices, config, generator)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
        step += 1
        if torch.isfinite(norm) and torch.isfinite(loss):
            optimizer.step()
            _update_average(average, model, min(config.weight_average, step / (step + 10)))
            running = value if math.isnan(running) else 0.98 * running + 0.02 * value
        else:
            result.num_skipped += 1
        result.minutes = (time.monotonic() - start) / 60
        progress = step / config.num_steps
        if config.max_minutes is not None:
            progress = max(progress, result.minutes / config.max_minutes)
        report({"step": step, "progress": min(progress, 1.0), "loss": running})
        if step % config.validate_every == 0 or progress >= 1:
            found, table = validate(average, problems, config)
            result.history.append({"step": step, "loss": running, **asdict(found)})
            report(result.history[-1])
            if found.missed < result.best.missed:
                result.improved, result.best, result.best_table = True, found, table
                kept.load_state_dict(average.state_dict())
    if result.best.range > untrained.range:
        _reset_range_head(kept)
        result.best, result.best_table = validate(kept, problems, config)
        result.history.append({"step": step, "range_head_reset": True, **asdict(result.best)})
    result.num_steps, result.minutes = step, (time.monotonic() - start) / 60
    return result


def _draw_step(config: PretrainConfig, generator: torch.Generator) -> tuple[Problem, int, int, int]:
    """A fresh problem, and how many neighbours, candidates and loops to use on it."""
    u = torch.rand(3 + config.batch_size, generator=generator).tolist()
    laws = []
    for kind in u[3:]:
        known = config.training_laws(kernels=kind < config.kernel_share)
        laws.append(known[_index(len(known), generator)])
    n = config.sizes[_index(len(config.sizes), generator)]
    low, high = config.columns[0], max(config.columns[0], min(config.columns[1], n // 4))
    num_columns = round(math.exp(math.log(low) + u[0] * (math.log(high) - math.log(low))))
    problem = make_problem(laws, n, num_columns, noisy_diagonal=u[1] < 0.5, generator=generator)
    num_neighbors = _between(config.num_neighbors, generator)
    few, many = config.candidates_per_neighbor
    num_candidates = round(num_neighbors * (few + u[2] * (many - few)))
    return problem, num_neighbors, num_candidates, _between(config.loops, generator)


def _between(ends: tuple[int, int], generator: torch.Generator) -> int:
    return ends[0] + _index(ends[1] - ends[0] + 1, generator)


def _index(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator).item())


def _loss(
    model: RangeFormer,
    problem: Problem,
    num_neighbors: int,
    num_candidates: int,
    num_loops: int,
    config: PretrainConfig,
    generator: torch.Generator,
) -> tuple[torch.Tensor, float]:
    """Neighbour loss + weight x range loss, and the neighbour loss alone; features in float32, as the weights are."""
    features = model(
        problem.factor, problem.residual_diagonal, problem.diagonal, num_loops=num_loops, generator=generator
    )
    embedding, range_features = features.neighbors.to(torch.float32), features.range.to(torch.float32)
    loss = neighbor_loss(embedding, problem.correlation, num_neighbors, num_candidates)
    if config.range_weight == 0:
        return loss, loss.item()
    rank = problem.factor.shape[-1]
    total = loss + config.range_weight * range_loss(range_features, problem.kernel, rank, generator)
    return total, loss.item()


def _schedule(progress: float) -> float:
    """Linear warm-up, cosine to a hundredth."""
    if progress < _WARM_UP:
        return (progress + 1e-3) / _WARM_UP
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP)))


@torch.no_grad()
def _update_average(average: RangeFormer, model: RangeFormer, decay: float) -> None:
    for a, w in zip(average.parameters(), model.parameters(), strict=True):
        a.lerp_(w, 1 - decay)


@torch.no_grad()
def _reset_range_head(model: RangeFormer) -> None:
    """Make the range features those of the untrained model: training must not end below the start here either."""
    gain, knobs = model.range_gain[-1], model.knobs[-1]
    assert isinstance(gain, torch.nn.Linear)
    assert isinstance(knobs, torch.nn.Linear)
    # the first knobs belong to the neighbours, the last ones are the gains of the bandwidths
    num_bandwidths = len(model.config.bandwidths)
    for parameter in (gain.weight, gain.bias, model.range_correction.weight, model.range_correction.bias):
        parameter.zero_()
    for parameter in (knobs.weight, knobs.bias):
        parameter[-num_bandwidths:] = 0
